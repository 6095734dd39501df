"""`jupyman demo`: a temporary SSH host on this computer, and a tour of the verbs."""
