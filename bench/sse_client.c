/* Subscribers of server-sent events, cheap enough to load a server from the same machine: one epoll, one buffer.
 *
 * sse_client PORT PATH SUBSCRIBERS EVENTS: connects, says "ready", and reads until every subscriber has EVENTS events
 * or its stdin ends; then says what it saw as one JSON object. An event bears "~" + 10 digits of its number, from 0 +
 * 16 digits of microseconds since the epoch, when it was sent; the order of each subscriber's events is checked. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 26, BUFFER = 1 << 18, SLOTS = 1 << 18, SLOT_US = 100 };

struct reader {
    int fd, known, begun; /* known: characters of a mark that the last read ended in; begun: it saw its first bytes */
    uint32_t seen, wrong;
    char mark[MARK];
};

static uint32_t slots[SLOTS]; /* deliveries by their delay */
static uint64_t delivered, wrong, bytes;
static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void marked(struct reader *one, int64_t now) {
    int64_t number = 0, sent = 0;
    for (int i = 0; i < 10; i++) number = number * 10 + (one->mark[i] - '0');
    for (int i = 10; i < MARK; i++) sent = sent * 10 + (one->mark[i] - '0');
    if (number != one->seen) wrong++;
    one->seen = (uint32_t)number + 1;
    int64_t slot = (now - sent) / SLOT_US;
    slots[slot < 0 ? 0 : slot >= SLOTS ? SLOTS - 1 : slot]++;
    delivered++;
}

static void take(struct reader *one, const char *at, ssize_t size, int64_t now) {
    const char *end = at + size;
    while (at < end) {
        if (one->known < 0) {
            at = memchr(at, '~', (size_t)(end - at));
            if (!at) return;
            at++;
            one->known = 0;
        }
        int want = MARK - one->known, there = (int)(end - at);
        int part = want < there ? want : there;
        memcpy(one->mark + one->known, at, (size_t)part);
        at += part;
        one->known += part;
        if (one->known == MARK) {
            marked(one, now);
            one->known = -1;
        }
    }
}

static void open_one(struct reader *one, int port, const char *path, int epoll) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    char text[512];
    int size = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n",
                        path, port);
    one->known = -1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (one->fd < 0) fail("socket");
    if (connect(one->fd, (struct sockaddr *)&where, sizeof where) < 0) fail("connect");
    if (write(one->fd, text, (size_t)size) != size) fail("write");
    fcntl(one->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event) < 0) fail("epoll_ctl");
}

static double slot_ms(double part) {
    uint64_t sum = 0;
    for (int i = 0; i < SLOTS; i++)
        if ((sum += slots[i]) && (double)sum >= part * (double)delivered) return (i + 1) * SLOT_US / 1000.0;
    return 0;
}

static void say(int count, uint32_t events, int64_t first, int64_t last, uint64_t reads) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"delivered\": %llu, \"expected\": %llu, \"out_of_order\": %llu, \"bytes\": %llu, \"reads\": %llu, "
           "\"wall_s\": %.3f, \"cpu_s\": %.2f, \"p50_ms\": %.1f, \"p99_ms\": %.1f, \"max_ms\": %.1f}\n",
           (unsigned long long)delivered, (unsigned long long)count * events, (unsigned long long)wrong,
           (unsigned long long)bytes, (unsigned long long)reads, (double)(last - first) / 1e6, cpu, slot_ms(0.5),
           slot_ms(0.99), slot_ms(1.0));
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int port = atoi(argv[1]), count = atoi(argv[3]), begun = 0, left = count;
    uint32_t events = (uint32_t)strtoul(argv[4], NULL, 10);
    static char buffer[BUFFER];
    struct reader *all = calloc((size_t)count, sizeof *all);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ears[256], input = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    for (int i = 0; i < count; i++) open_one(&all[i], port, argv[2], epoll);
    int64_t first = 0, last = 0;
    uint64_t reads = 0;
    for (int over = 0; !over;) {
        int found = epoll_wait(epoll, ears, 256, -1);
        for (int i = 0; i < found; i++) {
            struct reader *one = ears[i].data.ptr;
            if (!one) {
                over = 1;
                continue;
            }
            ssize_t size = recv(one->fd, buffer, BUFFER, 0);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, one->fd, NULL);
                if (one->seen < events && --left == 0) over = 1;
                continue;
            }
            reads++;
            bytes += (uint64_t)size;
            if (!one->begun) {
                if (size < 12 || memcmp(buffer + 9, "200", 3)) {
                    fprintf(stderr, "%.*s\n", (int)size, buffer);
                    return 1;
                }
                one->begun = 1;
                if (++begun == count) {
                    puts("ready");
                    fflush(stdout);
                }
            }
            uint64_t before = delivered;
            uint32_t had = one->seen;
            int64_t now = now_us();
            take(one, buffer, size, now);
            if (delivered != before) {
                last = now;
                if (!first) first = now;
            }
            if (had < events && one->seen >= events && --left == 0) over = 1;
        }
    }
    say(count, events, first, last, reads);
    return 0;
}
