"""`jupyman demo`: a throw-away SSH host on this computer, and a tour of the verbs."""
