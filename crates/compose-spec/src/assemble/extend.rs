//! `extends`: a service over another one, of the same file or of another.

use super::{Assembler, CHAIN_MAX};
use crate::decode::Fields;
use crate::merge::merge;
use crate::paths::{self, Base};
use crate::source::Span;
use crate::value::{Map, Node, Value};
use crate::{suggest, yaml};

impl Assembler<'_> {
    /// Puts what services extend under them.
    pub(super) fn extend(&mut self, map: &mut Map, file: &str, folder: &str) {
        let Some(services) = map.get("services").and_then(Node::as_map) else { return };
        let services = services.clone();
        let extending: Vec<String> = services
            .entries
            .iter()
            .filter(|entry| entry.value.as_map().is_some_and(|service| service.get("extends").is_some()))
            .map(|entry| entry.key.clone())
            .collect();
        for name in extending {
            let mut chain = Vec::new();
            let errors = self.report.error_count();
            let whole = self.extended_service(&services, &name, file, folder, &mut chain);
            if self.report.error_count() > errors {
                self.unextended.insert(name.clone());
            }
            let target =
                map.get_mut("services").and_then(Node::as_map_mut).and_then(|services| services.get_mut(&name));
            if let (Some(whole), Some(node)) = (whole, target) {
                node.value = Value::Map(whole);
            }
        }
    }

    fn extended_service(
        &mut self,
        services: &Map,
        name: &str,
        file: &str,
        folder: &str,
        chain: &mut Vec<(String, String)>,
    ) -> Option<Map> {
        let mut service = services.get(name)?.as_map()?.clone();
        let Some(extends) = service.remove("extends") else { return Some(service) };
        let span = extends.span;
        if let Some(mut fields) = Fields::open(&extends, format!("services.{name}.extends"), &mut self.report) {
            fields.ignored(&["service", "file"]);
            fields.finish();
        }
        let from = extends.as_map().and_then(|map| map.get("service")).and_then(Node::as_str);
        let Some(from) = from else {
            self.report
                .error(span, format!("services.{name}.extends has no service"))
                .with_help("write extends: {service: base}, with file: for another file's");
            return Some(service);
        };
        chain.push((file.to_owned(), name.to_owned()));
        let other = extends.as_map().and_then(|map| map.get("file")).and_then(Node::as_str);
        let base = Base { folder, home: self.request.home.as_deref() };
        let other = other.map(|path| base.absolute(path)).filter(|path| path != file);
        let its_file = other.as_deref().unwrap_or(file).to_owned();
        if chain.contains(&(its_file.clone(), from.to_owned())) || chain.len() > CHAIN_MAX {
            let walk: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).chain([from]).collect();
            self.report.error(span, format!("services extend each other in a circle: {}", walk.join(" extends ")));
            return Some(service);
        }
        let loaded;
        let (its_services, its_folder) = match &other {
            None => (services, folder),
            Some(path) => {
                loaded = self.services_of(path, span)?;
                (&loaded, paths::folder(path))
            }
        };
        if its_services.get(from).is_none() {
            let place = self.shown(&its_file);
            let known: Vec<&str> = its_services.entries.iter().map(|entry| entry.key.as_str()).collect();
            let problem = self
                .report
                .error(span, format!("services.{name} extends service `{from}`, which {place} does not have"));
            if let Some(near) = suggest::nearest(from, known) {
                problem.with_help(format!("did you mean `{near}`?"));
            }
            return Some(service);
        }
        let (its_services, its_folder) = (its_services.clone(), its_folder.to_owned());
        let mut whole = self.extended_service(&its_services, from, &its_file, &its_folder, chain)?;
        merge(&mut whole, service, &["services", name], &mut self.report);
        Some(whole)
    }

    /// The services of a file that is extended, relative to its own folder.
    fn services_of(&mut self, path: &str, at: Span) -> Option<Map> {
        if let Some(known) = self.extended.get(path) {
            return known.clone();
        }
        let (id, text) = self.text(path, Some(at))?;
        let mut documents = yaml::parse(id, text, &mut self.report).unwrap_or_else(|| {
            self.broken = true;
            Vec::new()
        });
        let mut services = None;
        for document in &mut documents {
            self.prepare(document, paths::folder(path));
            services =
                document.as_map().and_then(|map| map.get("services")).and_then(Node::as_map).cloned().or(services);
        }
        self.extended.insert(path.to_owned(), services.clone());
        services
    }
}
