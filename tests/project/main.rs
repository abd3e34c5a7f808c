//! Loading compose files, through the public interface.

// `cfg(test)` always holds here; it tells clippy that these modules may panic as tests do.
#[cfg(test)]
mod diagnostics;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod load;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod properties;
