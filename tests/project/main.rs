//! Loading compose files, through the public interface.

mod disk;
mod load;
