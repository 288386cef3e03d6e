//! What a task may use, and what is set aside for it.

use clap::Args;
use skep_model::Resources;

use crate::cli::service::syntax::{BytesFlag, CpusFlag};

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct ResourceFlags {
    /// Most cores: 0.5; 0 is no limit
    #[arg(long, value_name = "CORES")]
    limit_cpu: Option<CpusFlag>,
    /// Most memory: 512m; 0 is no limit
    #[arg(long, value_name = "BYTES")]
    limit_memory: Option<BytesFlag>,
    /// Most processes; 0 is no limit
    #[arg(long, value_name = "NUMBER")]
    limit_pids: Option<u64>,
    /// Cores that a node must have free
    #[arg(long, value_name = "CORES")]
    reserve_cpu: Option<CpusFlag>,
    /// Memory that a node must have free
    #[arg(long, value_name = "BYTES")]
    reserve_memory: Option<BytesFlag>,
}

impl ResourceFlags {
    pub fn apply(&self, resources: &mut Resources) {
        let Resources { limits, reservations } = resources;
        if let Some(CpusFlag(cpus)) = self.limit_cpu {
            limits.nano_cpus = cpus;
        }
        if let Some(BytesFlag(memory)) = self.limit_memory {
            limits.memory = memory;
        }
        if let Some(pids) = self.limit_pids {
            limits.pids = (pids > 0).then_some(pids);
        }
        if let Some(CpusFlag(cpus)) = self.reserve_cpu {
            reservations.nano_cpus = cpus;
        }
        if let Some(BytesFlag(memory)) = self.reserve_memory {
            reservations.memory = memory;
        }
    }
}
