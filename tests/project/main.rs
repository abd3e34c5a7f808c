//! Loading compose files, through the public interface.

mod diagnostics;
mod disk;
mod hostile;
mod load;
mod properties;
