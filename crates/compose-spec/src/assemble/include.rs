//! `include`: other projects, each with its own folder and variables, under the one that names them.

use super::{Assembler, CHAIN_MAX};
use crate::decode::Fields;
use crate::merge::merge;
use crate::paths::{self, Base};
use crate::project::At;
use crate::value::{Map, Node, Value};

impl Assembler<'_> {
    /// All that a file includes, merged; an earlier include wins over a later one.
    pub(super) fn included(&mut self, map: &Map, file: &str, folder: &str, chain: &[String]) -> Option<Map> {
        let node = map.get("include")?;
        let Value::List(items) = &node.value else {
            self.report
                .error(node.span, format!("include must be a list, not {}", node.kind()))
                .with_help("write include: and below it - path/to/compose.yml");
            return None;
        };
        let chain: Vec<String> = chain.iter().cloned().chain([file.to_owned()]).collect();
        let mut all = Map::default();
        for item in items.iter().rev() {
            if let Some(one) = self.include(item, folder, &chain) {
                merge(&mut all, one, &[], &mut self.report);
            }
        }
        Some(all)
    }

    fn include(&mut self, item: &Node, folder: &str, chain: &[String]) -> Option<Map> {
        if let Some(mut fields) = Fields::open(item, "include", &mut self.report) {
            fields.ignored(&["path", "env_file", "project_directory"]);
            fields.finish();
        }
        let base = Base { folder, home: self.request.home.as_deref() };
        let paths_of = |key: &str| -> Vec<At<String>> {
            let list = item.as_map().and_then(|map| map.get(key)).and_then(Node::as_list).unwrap_or_default();
            let at = |node: &Node| Some(At { span: node.span, value: base.absolute(node.as_str()?) });
            list.iter().filter_map(at).collect()
        };
        let files = paths_of("path");
        let env_files = paths_of("env_file");
        let Some(first) = files.first() else {
            self.report.error(item.span, "this include has no path").with_help("write - path/to/compose.yml");
            return None;
        };
        if let Some(cycle) = files.iter().find(|file| chain.contains(&file.value)) {
            let walk: Vec<String> = chain.iter().chain([&cycle.value]).map(|path| self.shown(path)).collect();
            self.report.error(cycle.span, format!("include cycle: {}", walk.join(" includes ")));
            return None;
        }
        if chain.len() > CHAIN_MAX {
            self.report.error(item.span, format!("includes are nested deeper than {CHAIN_MAX}"));
            return None;
        }
        let given = item.as_map().and_then(|map| map.get("project_directory")).and_then(Node::as_str);
        let its_folder = given.map_or_else(|| paths::folder(&first.value).to_owned(), |given| base.absolute(given));
        let outer = self.variables.files.clone();
        if env_files.is_empty() {
            let default = format!("{}/.env", its_folder.trim_end_matches('/'));
            self.optional_env_file(&default);
        }
        for env_file in env_files.iter().filter(|file| file.value != "/dev/null") {
            self.env_file(&env_file.value, Some(env_file.span));
        }
        let map = self.project(&files, &its_folder, chain);
        self.variables.files = outer;
        Some(map)
    }
}
