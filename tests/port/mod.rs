//! One module per question; `stage` sets the scene and clears it.

mod aside;
mod comeback;
mod consequences;
mod containers;
mod keepers;
mod look_up;
mod release;
mod stage;
mod traced;
