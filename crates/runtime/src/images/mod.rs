//! Images: their names, their archives, their layers.

pub mod reference;
