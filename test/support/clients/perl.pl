# LWP over IO::Socket::SSL: one connection for each URL. See README.md for the arguments.
use strict;
use warnings;
use LWP::UserAgent;

my ($ca, $requests, $big, $names, @urls) = @ARGV;
my $body = substr("0123456789abcdef" x ($big / 16 + 1), 0, $big);

sub check {
    my ($response) = @_;
    die $response->status_line . "\n" unless $response->code == 200;
}

for my $url (@urls) {
    my $agent = LWP::UserAgent->new(keep_alive => 1, timeout => 60, ssl_opts => { SSL_ca_file => $ca });
    check($agent->post("$url/big", Content => $body)) if $big > 0;
    for my $name (split / /, $names) {
        check($agent->get("$url/$name", Authorization => "Bearer $ENV{$name}")) for 1 .. $requests;
    }
    check($agent->post("$url/big", Content => $body)) if $big > 0;
}
