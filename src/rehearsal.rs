//! The rehearsal: an upgrade of Harbor in a box, under load, in two lanes: directly and through tidegate.
//!
//! ```text
//! harbor   the stand-in for Harbor core
//! stage    one lane's Harbor, what stands before it, and its upgrade
//! load     what clients do, with the habits of docker, containerd, podman and crane
//! story    what happens to Harbor meanwhile
//! play     both lanes from beginning to end -> report, judged
//! against  the same load on a Harbor of the operator's
//! table    what a person sees of it, meanwhile and afterwards
//! ```

pub mod against;
pub mod harbor;
pub mod load;
pub mod play;
pub mod report;
pub mod stage;
pub mod story;
pub mod table;
