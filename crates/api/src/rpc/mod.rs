//! Calls: a trait to serve them, a client to make them, and between the two the conversions and the gate.
//!
//! [`service!`] writes for each service the trait that a daemon implements (plain types, [`Caller`] first), the adapter
//! that tonic calls (gate, decode, ask, encode), and the client. Nobody outside this crate sees a generated type.

mod caller;
mod refusal;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;

pub(crate) use caller::Admit;
pub use caller::Caller;
pub use refusal::{Refusal, RefusalKind};

use crate::wire::Element;

/// A stream of messages of one type, in either direction; the first error ends it.
pub type Messages<T> = BoxStream<'static, Result<T, Refusal>>;

/// The largest message that either side reads: a stack with all its secrets and configs, a listing of every task.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Who made the request; refused if the call is not open to them.
pub(crate) fn admit<T>(request: &tonic::Request<T>, admit: Admit) -> Result<Caller, Status> {
    let caller = *request
        .extensions()
        .get::<Caller>()
        .ok_or_else(|| Refusal::new(RefusalKind::Internal, "the connection does not say who is at its other end"))?;
    admit.check(&caller)?;
    Ok(caller)
}

pub(crate) fn decode<T: Element>(proto: T::Proto) -> Result<T, Refusal> {
    Ok(T::from_element(proto, "message")?)
}

pub(crate) fn incoming<T>(stream: tonic::Streaming<T::Proto>) -> Messages<T>
where
    T: Element + 'static,
    T::Proto: Send + 'static,
{
    stream.map(|message| decode(message?)).boxed()
}

pub(crate) fn outgoing<T>(messages: Messages<T>) -> BoxStream<'static, Result<T::Proto, Status>>
where
    T: Element + 'static,
{
    messages.map(|message| Ok(message?.to_element())).boxed()
}

macro_rules! service {
    (
        $(#[$about:meta])*
        $trait:ident in $server_module:ident::$server:ident, $client_module:ident::$client:ident, via $adapter:ident;
        unary {$(
            $(#[$unary_about:meta])* [$unary_admit:ident] $unary:ident($request:ty) -> $reply:ty;
        )*}
        down {$(
            $(#[$down_about:meta])*
            [$down_admit:ident] $down:ident($down_request:ty) -> stream $down_item:ty as $down_stream:ident;
        )*}
        up {$(
            $(#[$up_about:meta])* [$up_admit:ident] $up:ident(stream $up_item:ty) -> $up_reply:ty;
        )*}
        both {$(
            $(#[$both_about:meta])*
            [$both_admit:ident] $both:ident(stream $both_in:ty) -> stream $both_out:ty as $both_stream:ident;
        )*}
    ) => {
        $(#[$about])*
        pub trait $trait: Send + Sync + 'static {
            $($(#[$unary_about])* fn $unary(&self, caller: $crate::Caller, request: $request)
                -> impl Future<Output = Result<$reply, $crate::Refusal>> + Send;)*
            $($(#[$down_about])* fn $down(&self, caller: $crate::Caller, request: $down_request)
                -> impl Future<Output = Result<$crate::Messages<$down_item>, $crate::Refusal>> + Send;)*
            $($(#[$up_about])* fn $up(&self, caller: $crate::Caller, input: $crate::Messages<$up_item>)
                -> impl Future<Output = Result<$up_reply, $crate::Refusal>> + Send;)*
            $($(#[$both_about])* fn $both(&self, caller: $crate::Caller, input: $crate::Messages<$both_in>)
                -> impl Future<Output = Result<$crate::Messages<$both_out>, $crate::Refusal>> + Send;)*
        }

        pub(crate) struct $adapter<H>(std::sync::Arc<H>);

        impl<H: $trait> $adapter<H> {
            pub fn routes(handler: std::sync::Arc<H>) -> crate::pb::$server_module::$server<Self> {
                crate::pb::$server_module::$server::new(Self(handler))
                    .max_decoding_message_size(crate::rpc::MESSAGE_BYTES_MAX)
            }
        }

        #[tonic::async_trait]
        impl<H: $trait> crate::pb::$server_module::$trait for $adapter<H> {
            $(async fn $unary(&self, request: tonic::Request<<$request as crate::wire::Element>::Proto>)
                -> Result<tonic::Response<<$reply as crate::wire::Element>::Proto>, tonic::Status>
            {
                let caller = crate::rpc::admit(&request, crate::rpc::Admit::$unary_admit)?;
                let request: $request = crate::rpc::decode(request.into_inner())?;
                let reply: $reply = self.0.$unary(caller, request).await?;
                Ok(tonic::Response::new(crate::wire::Element::to_element(&reply)))
            })*
            $(
                type $down_stream = futures::stream::BoxStream<
                    'static, Result<<$down_item as crate::wire::Element>::Proto, tonic::Status>>;

                async fn $down(&self, request: tonic::Request<<$down_request as crate::wire::Element>::Proto>)
                    -> Result<tonic::Response<Self::$down_stream>, tonic::Status>
                {
                    let caller = crate::rpc::admit(&request, crate::rpc::Admit::$down_admit)?;
                    let request: $down_request = crate::rpc::decode(request.into_inner())?;
                    let items = self.0.$down(caller, request).await?;
                    Ok(tonic::Response::new(crate::rpc::outgoing(items)))
                }
            )*
            $(async fn $up(
                &self,
                request: tonic::Request<tonic::Streaming<<$up_item as crate::wire::Element>::Proto>>,
            ) -> Result<tonic::Response<<$up_reply as crate::wire::Element>::Proto>, tonic::Status> {
                let caller = crate::rpc::admit(&request, crate::rpc::Admit::$up_admit)?;
                let reply: $up_reply = self.0.$up(caller, crate::rpc::incoming(request.into_inner())).await?;
                Ok(tonic::Response::new(crate::wire::Element::to_element(&reply)))
            })*
            $(
                type $both_stream = futures::stream::BoxStream<
                    'static, Result<<$both_out as crate::wire::Element>::Proto, tonic::Status>>;

                async fn $both(
                    &self,
                    request: tonic::Request<tonic::Streaming<<$both_in as crate::wire::Element>::Proto>>,
                ) -> Result<tonic::Response<Self::$both_stream>, tonic::Status> {
                    let caller = crate::rpc::admit(&request, crate::rpc::Admit::$both_admit)?;
                    let output = self.0.$both(caller, crate::rpc::incoming(request.into_inner())).await?;
                    Ok(tonic::Response::new(crate::rpc::outgoing(output)))
                }
            )*
        }

        $(#[$about])*
        /// Cheap to clone; calls may run at the same time.
        #[derive(Debug, Clone)]
        pub struct $client(crate::pb::$client_module::$client<tonic::transport::Channel>);

        impl $client {
            pub fn new(connection: $crate::Connection) -> Self {
                let inner = crate::pb::$client_module::$client::new(connection.into_channel())
                    .max_decoding_message_size(crate::rpc::MESSAGE_BYTES_MAX);
                Self(inner)
            }

            $($(#[$unary_about])* pub async fn $unary(&self, request: $request) -> Result<$reply, $crate::Refusal> {
                let reply = self.0.clone().$unary(crate::wire::Element::to_element(&request)).await?;
                crate::rpc::decode(reply.into_inner())
            })*
            $($(#[$down_about])* pub async fn $down(&self, request: $down_request)
                -> Result<$crate::Messages<$down_item>, $crate::Refusal>
            {
                let reply = self.0.clone().$down(crate::wire::Element::to_element(&request)).await?;
                Ok(crate::rpc::incoming(reply.into_inner()))
            })*
            $($(#[$up_about])* pub async fn $up(
                &self,
                input: impl futures::Stream<Item = $up_item> + Send + 'static,
            ) -> Result<$up_reply, $crate::Refusal> {
                let input = futures::StreamExt::map(input, |item| crate::wire::Element::to_element(&item));
                let reply = self.0.clone().$up(input).await?;
                crate::rpc::decode(reply.into_inner())
            })*
            $($(#[$both_about])* pub async fn $both(
                &self,
                input: impl futures::Stream<Item = $both_in> + Send + 'static,
            ) -> Result<$crate::Messages<$both_out>, $crate::Refusal> {
                let input = futures::StreamExt::map(input, |item| crate::wire::Element::to_element(&item));
                let reply = self.0.clone().$both(input).await?;
                Ok(crate::rpc::incoming(reply.into_inner()))
            })*
        }
    };
}
pub(crate) use service;
