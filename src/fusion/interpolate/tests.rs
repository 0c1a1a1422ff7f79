//! Interpolation on small networks: what must hold.
