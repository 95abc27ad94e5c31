//! tidegate: an authenticating reverse proxy in front of Harbor.
//!
//! A request's path, one hop and one file each, no step calling back:
//!
//! ```text
//! listener -> wire -> service          edges/listener, edges/wire, flow/service
//!   Route::of(method, path)            words/route        what is asked for
//!   Credential::of(headers)            words/credential   who says so
//!   token::verify(token, ring, now)    decisions/token    is it proved by a key of the window
//!   plan(judged, held, ...)            decisions/plan     which endpoint, and what it gets
//!   upstream.send(plan)                edges/upstream     one exchange with one endpoint
//!   refusal -> second plan             decisions/refusal  was that Harbor's judgement, or its key
//!   respond                            flow/respond       the answer, or one row of the rejection table
//! ```
//!
//! Groups import only what stands before them: words <- decisions <- edges <- flow <- app.
//! Words and decisions hold no socket, file, clock or `async`.

pub mod app;
pub mod decisions;
pub mod edges;
pub mod flow;
pub mod rehearsal;
pub mod words;
