"""Files: opened and read within limits, written whole, who may read them; keys of content, and a job's folders."""

from metarec.files._folders import keep_private, make_folder, make_folders
from metarec.files._keys import code_facts, content_key, dotted
from metarec.files._limits import Limit, open_regular
from metarec.files._whole import held, read_kept, remove_abandoned, write_kept, write_whole

__all__ = [
    "Limit",
    "code_facts",
    "content_key",
    "dotted",
    "held",
    "keep_private",
    "make_folder",
    "make_folders",
    "open_regular",
    "read_kept",
    "remove_abandoned",
    "write_kept",
    "write_whole",
]
