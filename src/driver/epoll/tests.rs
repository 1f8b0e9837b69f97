//! The emulated kernel, request by request.
