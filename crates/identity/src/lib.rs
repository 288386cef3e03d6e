//! A node's key, certificates and their hot reload; the cluster's CA; join tokens; the TLS acceptor and connector.
