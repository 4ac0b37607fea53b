"""A plug-in package for metarec, with one module for each plug-in."""
