//! Places pending tasks on nodes, or says why no node fits.
