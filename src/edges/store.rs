//! The store: what outlives this process, sealed, in a file or a server.
//!
//! A [`Backend`] is one real store: it keeps bytes under a place and a generation, and knows nothing of what they
//! are. The [`Store`] stands before it: seals and opens, queues changes, and never holds up a request.

mod backend;
mod embedded;
mod front;
mod memory;
mod seal_files;
mod server;

pub use self::{
    backend::{Backend, Cursor, Doing, Ear, Kept, Page, StoreFault, Write, Written},
    embedded::{Embedded, NotNow, OpenStoreFault, set_aside},
    front::{Health, Loaded, Store},
    memory::Memory,
    seal_files::{SealFileFault, is_open_to_all, seal_ring},
    server::{Form, Password, Server, ServerSettings, ServerTls},
};
