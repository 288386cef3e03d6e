//! What a node certificate says: who, in which role, of which cluster, and from when to when.
//!
//! Reads subjects; proves nothing. The chain is checked by the TLS handshake before a subject is believed.

use rcgen::{DistinguishedName, DnType, DnValue};
use rustls::pki_types::CertificateDer;
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::clock::from_unix_seconds;

const OU_MANAGER: &str = "skep-manager";
const OU_WORKER: &str = "skep-worker";

/// A member of the cluster, as its certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    pub node_id: NodeId,
    pub role: Role,
    pub cluster_id: ClusterId,
}

/// The other end of a TLS connection that this node accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Node(PeerIdentity),
    /// A node whose certificate has expired, or is of a CA that was rotated away: may renew it and do nothing else.
    Lapsed(PeerIdentity),
    /// No client certificate: may ask for one and do nothing else.
    Anonymous,
}

/// A node's certificate, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCertificate {
    pub identity: PeerIdentity,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate is not readable X.509")]
    Malformed,
    #[error("the certificate's subject has no {field}")]
    SubjectField { field: &'static str },
    #[error("the certificate's subject has a part (type {part}) that is not a plain text")]
    SubjectPart { part: String },
    #[error("the certificate's subject has {field} `{value}`, expected {expected}")]
    SubjectValue { field: &'static str, value: String, expected: &'static str },
}

impl NodeCertificate {
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let subject = certificate.subject();
        let common_name = attribute(subject.iter_common_name(), "CN (node id)")?;
        let unit = attribute(subject.iter_organizational_unit(), "OU (role)")?;
        let validity = certificate.validity();
        Ok(Self {
            identity: PeerIdentity {
                node_id: common_name.parse().map_err(|_| CertificateError::SubjectValue {
                    field: "CN",
                    value: common_name.to_owned(),
                    expected: "a node id",
                })?,
                role: role_of(unit)?,
                cluster_id: cluster_of(subject)?,
            },
            not_before: from_unix_seconds(validity.not_before.timestamp()),
            not_after: from_unix_seconds(validity.not_after.timestamp()),
        })
    }
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    Ok(certificate)
}

pub(crate) fn cluster_of(subject: &X509Name<'_>) -> Result<ClusterId, CertificateError> {
    let organization = attribute(subject.iter_organization(), "O (cluster id)")?;
    organization.parse().map_err(|_| CertificateError::SubjectValue {
        field: "O",
        value: organization.to_owned(),
        expected: "a cluster id",
    })
}

/// The same name, to be written again.
pub(crate) fn name_of(subject: &X509Name<'_>) -> Result<DistinguishedName, CertificateError> {
    let mut name = DistinguishedName::new();
    for part in subject.iter_attributes() {
        let unknown = || CertificateError::SubjectPart { part: part.attr_type().to_id_string() };
        let kind = part.attr_type().iter().ok_or_else(unknown)?.collect::<Vec<u64>>();
        let text = part.as_str().map_err(|_| unknown())?.to_owned();
        let value = match part.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(|_| unknown())?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        };
        name.push(DnType::from_oid(&kind), value);
    }
    Ok(name)
}

/// Whether a CA's certificate stands for itself; a cross certificate is signed by another.
pub(crate) fn is_root(der: &CertificateDer<'_>) -> Result<bool, CertificateError> {
    let certificate = parse(der)?;
    Ok(certificate.subject() == certificate.issuer())
}

pub(crate) fn unit_of(role: Role) -> &'static str {
    match role {
        Role::Manager => OU_MANAGER,
        Role::Worker => OU_WORKER,
    }
}

fn role_of(unit: &str) -> Result<Role, CertificateError> {
    match unit {
        OU_MANAGER => Ok(Role::Manager),
        OU_WORKER => Ok(Role::Worker),
        other => Err(CertificateError::SubjectValue {
            field: "OU",
            value: other.to_owned(),
            expected: "`skep-manager` or `skep-worker`",
        }),
    }
}

fn attribute<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    field: &'static str,
) -> Result<&'a str, CertificateError> {
    values.next().and_then(|value| value.as_str().ok()).ok_or(CertificateError::SubjectField { field })
}
