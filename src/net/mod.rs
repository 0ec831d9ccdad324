//! Shells that move octets and know no SMTP: sockets, copying, splicing, the clock.
