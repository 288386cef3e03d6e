//! What a task may use, and what is set aside for it.

use clap::Args;
use skep_model::Resources;

use crate::cli::service::syntax::{BytesFlag, CpusFlag, GenericFlag};

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
    /// So many of a kind that nodes are configured to have: gpu=2
    #[arg(long, value_name = "KIND=NUMBER", alias = "generic-resource-add")]
    generic_resource: Vec<GenericFlag>,
    /// A kind that is not asked for any more
    #[arg(long, value_name = "KIND", hide = true)]
    generic_resource_rm: Vec<String>,
}

impl ResourceFlags {
    pub fn apply(&self, resources: &mut Resources) {
        let Resources { limits, reservations, generic } = resources;
        generic.retain(|asked| !self.generic_resource_rm.contains(&asked.kind));
        for GenericFlag(added) in &self.generic_resource {
            generic.retain(|asked| asked.kind != added.kind);
            generic.push(added.clone());
        }
        generic.sort();
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
