/*
 * box WEST EAST SEED LOW HIGH KINDS CAPTURE JOURNAL: a bad stretch of the way between two interfaces.
 *
 * Frames go from one interface to the other. Those of TCP connections whose client's port (at the WEST) lies in
 * [LOW, HIGH) meet with what KINDS names, a list with commas; all others pass. What happens to packet n of a connection
 * in one direction depends on SEED, the port, the direction and n alone. Payload is never changed, and every checksum
 * is right.
 *
 * CAPTURE (pcap) holds the frames of these connections as they came from the WEST, before anything happened to them,
 * and as they went there, after it. JOURNAL has a line for everything that was done. Both interfaces hand over whole
 * frames: switch their peers' offloads off. Says "ready" when it listens, and ends when standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { k_frame_max = 65536, k_ethernet = 14, k_millisecond = 1000000 };
enum { tcp_fin = 1, tcp_syn = 2, tcp_rst = 4, tcp_psh = 8, tcp_ack = 16 };
enum { option_end = 0, option_nop = 1, option_sack_permitted = 4, option_sack = 5 };
enum side { side_west = 0, side_east = 1 };

enum kind {
	kind_drop,
	kind_duplicate,
	kind_reorder,
	kind_delay,
	kind_cut,
	kind_window,
	kind_probe,
	kind_sack,
	kind_reset
};
static const char *const kind_names[] = {
	"drop", "duplicate", "reorder", "delay", "cut", "window", "probe", "sack", "reset", NULL,
};

/* One TCP connection, by its client's port. */
struct connection {
	bool known;
	uint32_t kinds;        /* of those that are asked for, what this one meets with */
	uint32_t delay_ms;
	uint32_t reset_at;     /* number of the packet from the client after which it is ended; 0: never */
	uint32_t number[2];    /* packets, by the side that they came from */
	uint32_t burst[2];     /* of which the next ones are lost, too */
	uint64_t burst_until[2]; /* but not later: what TCP repeats ever more rarely would all be lost */
	uint32_t small;        /* packets from the server whose window is made small */
	uint64_t closed_until; /* the window is zero until then */
	uint32_t next[2];      /* sequence number after the last byte, by the side that sent it */
	uint32_t acknowledged; /* by the server */
	uint8_t headers[2][k_ethernet + 40 + 60]; /* of the last packet from that side */
	uint32_t headers_bytes[2];
};

struct segment {
	uint8_t *frame, *ip, *tcp, *payload;
	bool ipv6;
	uint32_t length; /* of the payload */
	uint32_t sequence;
	uint8_t flags;
};

/* What is to leave later, and (frame NULL) windows that are to open. */
struct waiting {
	uint64_t due;
	uint64_t serial;
	uint8_t *frame;
	uint32_t bytes;
	uint16_t port;
	bool ours;
	enum side to;
};

static struct connection connections[65536];
static struct waiting *heap;
static size_t heap_count, heap_room;
static uint64_t serial, seed;
static uint32_t low, high, asked;
static int sockets[2];
static FILE *capture, *journal;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + time.tv_nsec;
}

/* SplitMix64. */
static uint64_t mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15u;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
	value = (value ^ value >> 27) * 0x94d049bb133111ebu;
	return value ^ value >> 31;
}

/* A number below `limit`, for this packet (0: for the connection) and this question. */
static uint32_t roll(uint32_t port, enum side from, uint32_t number, uint32_t question, uint32_t limit)
{
	return mix(mix(mix(seed ^ (uint64_t)port << 32) ^ ((uint64_t)from << 32 | number)) ^ question) % limit;
}

static uint16_t get16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t sum16(const uint8_t *bytes, uint32_t count, uint32_t sum)
{
	for (uint32_t i = 0; i + 1 < count; i += 2)
		sum += get16(bytes + i);
	if (count & 1)
		sum += bytes[count - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Takes a frame apart if it is TCP without anything unusual around it. */
static bool parse(uint8_t *frame, uint32_t bytes, struct segment *segment)
{
	uint32_t type, size, total;

	if (bytes < k_ethernet + 40)
		return false;
	segment->frame = frame;
	segment->ip = frame + k_ethernet;
	type = get16(frame + 12);
	segment->ipv6 = type == ETH_P_IPV6;
	if (type == ETH_P_IP) {
		size = (segment->ip[0] & 15) * 4;
		total = get16(segment->ip + 2);
		if (segment->ip[9] != IPPROTO_TCP || (get16(segment->ip + 6) & 0x3fff))
			return false;
	} else if (segment->ipv6) {
		size = 40;
		total = 40 + get16(segment->ip + 4);
		if (segment->ip[6] != IPPROTO_TCP)
			return false;
	} else {
		return false;
	}
	segment->tcp = segment->ip + size;
	if (k_ethernet + total > bytes || total < size + 20)
		return false;
	segment->payload = segment->tcp + (segment->tcp[12] >> 4) * 4;
	if (segment->payload > segment->ip + total)
		return false;
	segment->length = segment->ip + total - segment->payload;
	segment->sequence = get32(segment->tcp + 4);
	segment->flags = segment->tcp[13];
	return true;
}

/* Writes lengths and checksums of a frame whose payload has `length` bytes; returns the frame's. */
static uint32_t finish(struct segment *segment, uint32_t length)
{
	uint32_t tcp_bytes = segment->payload - segment->tcp + length, sum = IPPROTO_TCP + tcp_bytes;

	segment->length = length;
	if (segment->ipv6) {
		put16(segment->ip + 4, tcp_bytes);
		sum = sum16(segment->ip + 8, 32, sum);
	} else {
		put16(segment->ip + 2, segment->tcp - segment->ip + tcp_bytes);
		put16(segment->ip + 10, 0);
		put16(segment->ip + 10, ~sum16(segment->ip, segment->tcp - segment->ip, 0));
		sum = sum16(segment->ip + 12, 8, sum);
	}
	put16(segment->tcp + 16, 0);
	put16(segment->tcp + 16, ~sum16(segment->tcp, tcp_bytes, sum));
	return segment->payload + length - segment->frame;
}

static void __attribute__((format(printf, 4, 5))) note(uint32_t port, enum side from, uint32_t number,
						       const char *format, ...)
{
	va_list arguments;

	fprintf(journal, "%u %c%u ", port, from == side_west ? '>' : '<', number);
	va_start(arguments, format);
	vfprintf(journal, format, arguments);
	va_end(arguments);
	fputc('\n', journal);
}

static void record(const uint8_t *frame, uint32_t bytes)
{
	uint64_t time = now();
	uint32_t header[4] = {time / 1000000000u, time % 1000000000u / 1000, bytes, bytes};

	fwrite(header, sizeof(header), 1, capture);
	fwrite(frame, bytes, 1, capture);
}

static void emit(enum side to, const uint8_t *frame, uint32_t bytes, bool ours)
{
	if (ours && to == side_west)
		record(frame, bytes);
	/* A full queue is one more loss. */
	if (send(sockets[to], frame, bytes, 0) < 0 && errno != ENOBUFS && errno != EAGAIN && errno != ENETDOWN) {
		perror("send");
		exit(1);
	}
}

static bool sooner(const struct waiting *a, const struct waiting *b)
{
	return a->due != b->due ? a->due < b->due : a->serial < b->serial;
}

static void push(struct waiting waiting)
{
	size_t at = heap_count++;

	if (heap_count > heap_room) {
		heap_room = heap_room ? heap_room * 2 : 1024;
		heap = realloc(heap, heap_room * sizeof(*heap));
		if (!heap)
			exit(1);
	}
	waiting.serial = serial++;
	while (at && sooner(&waiting, &heap[(at - 1) / 2])) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = waiting;
}

static struct waiting pop(void)
{
	struct waiting first = heap[0], last = heap[--heap_count];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < heap_count) {
		if (child + 1 < heap_count && sooner(&heap[child + 1], &heap[child]))
			child++;
		if (!sooner(&heap[child], &last))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = last;
	return first;
}

/* Sends a frame of one of our connections on after its delay. */
static void later(uint16_t port, enum side to, const uint8_t *frame, uint32_t bytes, uint64_t delay)
{
	struct waiting waiting = {.due = now() + delay, .bytes = bytes, .port = port, .ours = true, .to = to};

	if (!delay) {
		emit(to, frame, bytes, true);
		return;
	}
	waiting.frame = malloc(bytes);
	if (!waiting.frame)
		exit(1);
	memcpy(waiting.frame, frame, bytes);
	push(waiting);
}

/* A packet without payload, made from the headers of the last one from that side. */
static uint32_t bare(struct connection *connection, enum side from, uint8_t *frame, struct segment *segment,
		     uint8_t flags)
{
	uint32_t bytes = connection->headers_bytes[from];

	memcpy(frame, connection->headers[from], bytes);
	segment->frame = frame;
	segment->ip = frame + k_ethernet;
	segment->ipv6 = get16(frame + 12) == ETH_P_IPV6;
	segment->tcp = segment->ip + (segment->ipv6 ? 40 : (segment->ip[0] & 15) * 4);
	segment->payload = frame + bytes;
	segment->tcp[13] = flags;
	put32(segment->tcp + 4, connection->next[from]);
	return bytes;
}

/* What stays of the window for as long as it is closed or small. */
static void pinch(uint16_t port, struct connection *connection, struct segment *segment, uint32_t number)
{
	uint16_t window = get16(segment->tcp + 14);

	if (now() < connection->closed_until) {
		window = 0;
	} else if (connection->small) {
		connection->small--;
		window = window < 2 ? window : 1 + roll(port, side_east, number, 20, window < 40 ? window : 40);
	} else {
		return;
	}
	put16(segment->tcp + 14, window);
	finish(segment, segment->length);
}

static void strip_sack(struct segment *segment)
{
	uint8_t *option = segment->tcp + 20;
	bool stripped = false;

	while (option < segment->payload && *option != option_end) {
		uint32_t size = *option == option_nop ? 1 : option + 1 < segment->payload ? option[1] : 0;

		if (!size || option + size > segment->payload)
			break;
		if (*option == option_sack || *option == option_sack_permitted) {
			memset(option, option_nop, size);
			stripped = true;
		}
		option += size;
	}
	if (stripped)
		finish(segment, segment->length);
}

static void begin(uint16_t port, struct connection *connection)
{
	memset(connection, 0, sizeof(*connection));
	connection->known = true;
	for (uint32_t kind = 0; kind_names[kind]; kind++)
		if ((asked >> kind & 1) &&
		    (kind == kind_reset ? !roll(port, 0, 0, kind, 8) : roll(port, 0, 0, kind, 5) < 3))
			connection->kinds |= 1u << kind;
	if (connection->kinds >> kind_delay & 1)
		connection->delay_ms = 1 + roll(port, 0, 0, 30, 8);
	if (connection->kinds >> kind_reset & 1)
		connection->reset_at = 8 + roll(port, 0, 0, 31, 60);
	fprintf(journal, "%u begins", port);
	for (uint32_t kind = 0; kind_names[kind]; kind++)
		if (connection->kinds >> kind & 1)
			fprintf(journal, " %s", kind_names[kind]);
	fputc('\n', journal);
}

/* Ends the connection: for the client, the server, or both. */
static void reset(uint16_t port, struct connection *connection)
{
	uint8_t frame[k_ethernet + 40 + 60];
	struct segment segment;
	uint32_t whom = roll(port, 0, 0, 32, 3);

	connection->reset_at = 0;
	if (whom != 1 && connection->headers_bytes[side_east]) {
		bare(connection, side_east, frame, &segment, tcp_rst | tcp_ack);
		emit(side_west, frame, finish(&segment, 0), true);
	}
	if (whom != 0) {
		bare(connection, side_west, frame, &segment, tcp_rst | tcp_ack);
		emit(side_east, frame, finish(&segment, 0), true);
	}
	note(port, side_west, connection->number[side_west], "reset %s",
	     whom == 0 ? "client" :
	     whom == 1 ? "server" :
			 "both");
}

/* A keep-alive probe, as if from the other end; one byte before what is expected next, with that byte or without. */
static void probe(uint16_t port, struct connection *connection, enum side from, uint32_t number)
{
	uint8_t frame[k_ethernet + 40 + 60 + 1];
	struct segment segment;
	/* The server has the byte: what it holds is not looked at (RFC 9293 3.8.4). The client's are the server's to say. */
	uint32_t bytes = from == side_west ? roll(port, from, number, 21, 2) : 0;

	if (!connection->headers_bytes[side_west] || !connection->headers_bytes[side_east])
		return;
	bare(connection, from, frame, &segment, tcp_ack);
	put32(segment.tcp + 4, (from == side_west ? connection->acknowledged : connection->next[from]) - 1);
	segment.payload[0] = 0;
	emit(!from, frame, finish(&segment, bytes), true);
	note(port, from, number, "probe %u", bytes);
}

/* A window that was closed or small opens, without waiting for what the server says next. */
static void open_window(uint16_t port)
{
	struct connection *connection = &connections[port];
	uint8_t frame[k_ethernet + 40 + 60];
	struct segment segment;

	connection->small = 0;
	if (now() < connection->closed_until || !connection->headers_bytes[side_east])
		return;
	bare(connection, side_east, frame, &segment, tcp_ack);
	strip_sack(&segment);
	emit(side_west, frame, finish(&segment, 0), true);
	note(port, side_east, connection->number[side_east], "window opens");
}

static void remember(struct connection *connection, enum side from, const struct segment *segment)
{
	uint32_t end = segment->sequence + segment->length + !!(segment->flags & (tcp_syn | tcp_fin));

	if (!connection->headers_bytes[from] || before(connection->next[from], end))
		connection->next[from] = end;
	if (segment->flags & tcp_rst)
		connection->reset_at = 0;
	if (!(segment->flags & tcp_ack) || (segment->flags & (tcp_syn | tcp_rst)))
		return;
	connection->headers_bytes[from] = segment->payload - segment->frame;
	memcpy(connection->headers[from], segment->frame, connection->headers_bytes[from]);
	if (from == side_east)
		connection->acknowledged = get32(segment->tcp + 8);
}

/* Sends on a segment, perhaps in pieces that may overlap and overtake each other. */
static void pieces(uint16_t port, struct connection *connection, enum side from, uint32_t number,
		   struct segment *segment, uint64_t delay)
{
	uint8_t frame[k_frame_max];
	uint32_t header = segment->payload - segment->frame, at = 0, count = 0;
	uint8_t last = segment->flags;
	struct segment piece = *segment;

	piece.frame = frame;
	piece.ip = frame + (segment->ip - segment->frame);
	piece.tcp = frame + (segment->tcp - segment->frame);
	piece.payload = frame + header;
	while (at < segment->length) {
		uint32_t question = 100 + 8 * count++;
		uint32_t left = segment->length - at;
		uint32_t size = count == 5 ? left : 1 + roll(port, from, number, question, left);
		/* Begins with some bytes of the one before it. */
		uint32_t back = at && !roll(port, from, number, question + 1, 3) ?
					1 + roll(port, from, number, question + 2, at) :
					0;
		uint64_t more = 0;

		memcpy(frame, segment->frame, header);
		memcpy(frame + header, segment->payload + at - back, size + back);
		put32(piece.tcp + 4, segment->sequence + at - back);
		piece.tcp[13] = at + size == segment->length ? last : last & ~(tcp_fin | tcp_psh);
		at += size;
		if ((connection->kinds >> kind_drop & 1) && !roll(port, from, number, question + 3, 16)) {
			note(port, from, number, "cut: piece %u is lost", count);
			continue;
		}
		if ((connection->kinds >> kind_reorder & 1) && !roll(port, from, number, question + 4, 6))
			more = (1 + roll(port, from, number, question + 5, 10)) * (uint64_t)k_millisecond;
		later(port, !from, frame, finish(&piece, size + back), delay + more);
	}
	note(port, from, number, "cut %u into %u", segment->length, count);
}

static void impair(uint16_t port, enum side from, struct segment *segment, uint32_t bytes)
{
	struct connection *connection = &connections[port];
	uint32_t number, kinds;
	bool opening = segment->flags & tcp_syn;
	uint64_t delay;

	if (from == side_west && opening && !(segment->flags & tcp_ack) &&
	    (!connection->known || connection->next[side_west] != segment->sequence + 1))
		begin(port, connection);
	if (!connection->known)
		begin(port, connection);
	kinds = connection->kinds;
	number = ++connection->number[from];
	remember(connection, from, segment);
	delay = connection->delay_ms * (uint64_t)k_millisecond;
	if (kinds >> kind_sack & 1)
		strip_sack(segment);
	if (from == side_west && connection->reset_at && number >= connection->reset_at) {
		reset(port, connection);
		return;
	}
	if ((kinds >> kind_probe & 1) && !opening && !roll(port, from, number, 2, 24))
		probe(port, connection, from, number);
	/* A SYN that is lost costs a second, and tells nothing. */
	if ((kinds >> kind_drop & 1) && !opening) {
		if (now() > connection->burst_until[from])
			connection->burst[from] = 0;
		if (!connection->burst[from] && !roll(port, from, number, 3, 28)) {
			connection->burst[from] = 1 + roll(port, from, number, 4, 5);
			connection->burst_until[from] = now() + 50 * (uint64_t)k_millisecond;
		}
		if (connection->burst[from]) {
			connection->burst[from]--;
			note(port, from, number, "drop %u", segment->length);
			return;
		}
	}
	if (from == side_east && (kinds >> kind_window & 1) && segment->flags == tcp_ack) {
		uint32_t what = roll(port, from, number, 5, 60);
		uint32_t wait = 5 + roll(port, from, number, 6, what ? 40 : 250);

		if (what < 3 && now() >= connection->closed_until && !connection->small) {
			struct waiting opening_again = {.due = now() + wait * (uint64_t)k_millisecond, .port = port};

			if (what)
				connection->small = 1 + roll(port, from, number, 7, 6);
			else
				connection->closed_until = opening_again.due;
			push(opening_again);
			note(port, from, number, what ? "window small" : "window zero");
		}
		pinch(port, connection, segment, number);
	}
	if ((kinds >> kind_reorder & 1) && !roll(port, from, number, 8, 12)) {
		uint32_t more = 1 + roll(port, from, number, 9, 20);

		delay += more * (uint64_t)k_millisecond;
		note(port, from, number, "late by %u ms", more);
	}
	if ((kinds >> kind_duplicate & 1) && !roll(port, from, number, 10, 16)) {
		uint32_t copies = 1 + roll(port, from, number, 11, 3);

		for (uint32_t i = 0; i < copies; i++)
			later(port, !from, segment->frame, bytes,
			      delay + roll(port, from, number, 12 + i, 12) * (uint64_t)k_millisecond);
		note(port, from, number, "%u more", copies);
	}
	if ((kinds >> kind_cut & 1) && segment->length > 1 && !opening && !roll(port, from, number, 16, 3))
		pieces(port, connection, from, number, segment, delay);
	else
		later(port, !from, segment->frame, bytes, delay);
}

static void take(enum side from)
{
	static uint8_t frame[k_frame_max];

	for (uint32_t i = 0; i < 64; i++) {
		ssize_t bytes = recv(sockets[from], frame, sizeof(frame), MSG_DONTWAIT);
		struct segment segment;
		uint32_t port;

		if (bytes < 0)
			return;
		port = parse(frame, bytes, &segment) ? get16(segment.tcp + (from == side_west ? 0 : 2)) : 0;
		if (port < low || port >= high) {
			emit(!from, frame, bytes, false);
			continue;
		}
		if (from == side_west)
			record(frame, bytes);
		impair(port, from, &segment, segment.payload + segment.length - frame);
	}
}

static int listen_on(const char *name)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex(name),
	};
	int one = 1, room = 64 << 20, descriptor = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	if (descriptor < 0 || !address.sll_ifindex || bind(descriptor, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(descriptor, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room))) {
		perror(name);
		exit(1);
	}
	return descriptor;
}

int main(int argc, char **argv)
{
	const uint32_t pcap[6] = {0xa1b2c3d4, 4 << 16 | 2, 0, 0, 1 << 18, 1};

	if (argc != 9) {
		fprintf(stderr, "usage: box WEST EAST SEED LOW HIGH KINDS CAPTURE JOURNAL\n");
		return 2;
	}
	seed = strtoull(argv[3], NULL, 10);
	low = atoi(argv[4]);
	high = atoi(argv[5]);
	for (char *name = strtok(argv[6], ","); name; name = strtok(NULL, ",")) {
		uint32_t kind = 0;

		while (kind_names[kind] && strcmp(kind_names[kind], name))
			kind++;
		if (!kind_names[kind]) {
			fprintf(stderr, "no such kind: %s\n", name);
			return 2;
		}
		asked |= 1u << kind;
	}
	capture = fopen(argv[7], "w");
	journal = fopen(argv[8], "w");
	if (!capture || !journal) {
		perror("open");
		return 1;
	}
	fwrite(pcap, sizeof(pcap), 1, capture);
	sockets[side_west] = listen_on(argv[1]);
	sockets[side_east] = listen_on(argv[2]);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd ready[3] = {
			{.fd = sockets[side_west], .events = POLLIN},
			{.fd = sockets[side_east], .events = POLLIN},
			{.fd = 0, .events = POLLIN},
		};
		uint64_t time = now();
		struct timespec wait = {0};

		if (heap_count && heap[0].due > time) {
			wait.tv_sec = (heap[0].due - time) / 1000000000u;
			wait.tv_nsec = (heap[0].due - time) % 1000000000u;
		}
		if (ppoll(ready, 3, heap_count ? &wait : NULL, NULL) < 0 && errno != EINTR)
			return 1;
		while (heap_count && heap[0].due <= now()) {
			struct waiting waiting = pop();

			if (waiting.frame)
				emit(waiting.to, waiting.frame, waiting.bytes, waiting.ours);
			else
				open_window(waiting.port);
			free(waiting.frame);
		}
		if (ready[0].revents)
			take(side_west);
		if (ready[1].revents)
			take(side_east);
		if (ready[2].revents) /* its end */
			break;
	}
	return fclose(capture) || fclose(journal);
}
