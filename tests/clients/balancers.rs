//! The load balancers spread requests as the lanes need them to: each request for itself, by turns or by chance.

use crate::support::{
    balancer::{Balancer, Choice},
    http,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

#[test]
fn by_turns_no_two_requests_in_a_row_reach_the_same_address() {
    let both = [answering_with_its_address(), answering_with_its_address()];
    for balancer in [Balancer::nginx(Choice::RoundRobin, &both), Balancer::haproxy(Choice::RoundRobin, &both)]
    {
        let reached = reached(&balancer, 20);
        assert!(reached.windows(2).all(|pair| pair[0] != pair[1]), "{}: {reached:?}", balancer.name);
    }
}

#[test]
fn by_chance_both_addresses_are_reached_in_no_order() {
    let both = [answering_with_its_address(), answering_with_its_address()];
    for balancer in [Balancer::nginx(Choice::Random, &both), Balancer::haproxy(Choice::Random, &both)] {
        let reached = reached(&balancer, 60);
        let repeated = reached.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((5..55).contains(&repeated), "{}: {repeated} of 59 repeated", balancer.name);
    }
}

#[test]
fn nginx_stops_sending_to_an_address_that_left_its_list() {
    let both = [answering_with_its_address(), answering_with_its_address()];
    let mut balancer = Balancer::nginx(Choice::RoundRobin, &both);
    balancer.serve(&both[1..]);
    assert_eq!(reached(&balancer, 10), vec![both[1].to_string(); 10]);
}

/// Which address answered each of `requests` requests, all on one connection.
fn reached(balancer: &Balancer, requests: usize) -> Vec<String> {
    let mut asking = http::Connection::open(balancer.address).expect("a connection");
    (0..requests).map(|_| asking.ask("GET", "/", &[]).expect("an answer").body).collect()
}

/// A server that answers every request with the address that it listens on.
fn answering_with_its_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer_all(stream, &address.to_string()));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let reader = BufReader::new(stream.try_clone()?);
    for line in reader.lines() {
        if line?.is_empty() {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
    }
    Ok(())
}
