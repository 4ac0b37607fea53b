"""What a plug-in package for metarec looks like: a module for each thing that it brings."""
