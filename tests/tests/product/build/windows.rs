//! Dockerfiles of Windows images, which Docker has none of on Linux.
