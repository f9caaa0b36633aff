//! What a Kubernetes object is: kinds, metadata, selectors, patches, tables and Status errors.
//!
//! This room describes and never acts: no I/O (but for [`cron::time_zone`]), no async, no clock (time is an argument). Every kind that the
//! server knows is one [`Kind`] value in [`kinds::KINDS`]; routes, discovery, OpenAPI, tables, defaulting,
//! validation and patching all follow from that one description.
//!
//! Start reading at [`kind`], then one file of [`kinds`].

pub mod cron;
pub mod decode;
pub mod discovery;
pub mod field_path;
pub mod kind;
pub mod kinds;
pub mod metadata;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod selector;
pub mod status_error;
pub mod table;

pub use field_path::{FieldError, FieldPath};
pub use kind::Kind;
pub use object::Object;
pub use status_error::ApiError;
