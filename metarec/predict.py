"""``python -m metarec.predict``: see :mod:`metarec.cli.predict`."""

from metarec.cli.predict import main, predict_table, recommend_table

__all__ = ["main", "predict_table", "recommend_table"]

if __name__ == "__main__":
    main()
