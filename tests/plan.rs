//! The planner: small compose file + observed state → printed plan, and the convergence property.

#[path = "plan/conflicts.rs"]
mod conflicts;
#[path = "plan/convergence.rs"]
mod convergence;
#[path = "plan/ending.rs"]
mod ending;
#[path = "plan/exposed.rs"]
mod exposed;
#[path = "plan/images.rs"]
mod images;
#[path = "plan/links.rs"]
mod links;
#[path = "plan/once.rs"]
mod once;
#[path = "plan/placement.rs"]
mod placement;
#[path = "plan/pre_start.rs"]
mod pre_start;
#[path = "plan/provided.rs"]
mod provided;
#[path = "plan/starting.rs"]
mod starting;
#[path = "plan/world.rs"]
mod world;
