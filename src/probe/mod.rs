//! IS IT READY: one attempt of each kind, and the loop around them.
