//! OCI registry client, content store, unpack, garbage collection.
