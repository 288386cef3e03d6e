//! The wire: generated protobuf (private) and one conversion file per object; gRPC clients and servers.
