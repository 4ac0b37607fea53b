"""How fast ``metarec serve`` answers several clients, and whether it answers right."""
