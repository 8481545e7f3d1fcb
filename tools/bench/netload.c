/* Loads a network with one TCP stream, and says how fast it was. For tools/bench-net.
 *
 * netload serve PORT                                       the host's end: serves connections, one after the other
 * netload ADDRESS PORT NAME send|receive|ask MILLISECONDS  the guest's end: one measurement
 *
 * "send" is from guest to host: it is over when the host has told how many bytes came. "receive" is from host to guest.
 * "ask" sends one byte and waits for one, again and again. Prints one line:
 * "netload: NAME count=N nanoseconds=N", where N counts bytes, or what was asked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What iperf3 gives the kernel at a time. */
static char buffer[128 << 10];

static void fail(const char *what)
{
    printf("netload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Reads until there is no more; the bytes that came. */
static uint64_t drain(int fd)
{
    uint64_t total = 0;
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
        total += (uint64_t)n;
    return total;
}

static void serve_one(int fd)
{
    char what;
    if (read(fd, &what, 1) != 1)
        return;
    if (what == 's') {
        uint64_t total = drain(fd);
        if (write(fd, &total, sizeof total) != sizeof total)
            return;
    } else if (what == 'r') {
        /* Until the guest has enough and closes. */
        while (write(fd, buffer, sizeof buffer) > 0)
            ;
    } else {
        while (read(fd, buffer, 1) == 1 && write(fd, buffer, 1) == 1)
            ;
    }
}

static void serve(struct sockaddr_in *address)
{
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    address->sin_addr.s_addr = INADDR_ANY;
    if (listener < 0 || bind(listener, (struct sockaddr *)address, sizeof *address) || listen(listener, 8))
        fail("listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            fail("accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve_one(fd);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (argc == 3 && !strcmp(argv[1], "serve")) {
        address.sin_port = htons((uint16_t)atoi(argv[2]));
        serve(&address);
    }
    if (argc != 6) {
        puts("netload: wrong arguments");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    uint64_t limit = strtoull(argv[5], NULL, 0) * 1000000u, count = 0;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        fail("address");
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (write(fd, argv[4], 1) != 1)
        fail("write");

    uint64_t began = now();
    if (argv[4][0] == 's') {
        while (now() - began < limit)
            if (write(fd, buffer, sizeof buffer) < 0)
                fail("write");
        shutdown(fd, SHUT_WR);
        if (read(fd, &count, sizeof count) != sizeof count)
            fail("read");
    } else if (argv[4][0] == 'r') {
        while (now() - began < limit) {
            ssize_t n = read(fd, buffer, sizeof buffer);
            if (n <= 0)
                fail("read");
            count += (uint64_t)n;
        }
    } else {
        for (; now() - began < limit; count++)
            if (write(fd, buffer, 1) != 1 || read(fd, buffer, 1) != 1)
                fail("ask");
    }
    printf("netload: %s count=%llu nanoseconds=%llu\n", argv[3], (unsigned long long)count,
           (unsigned long long)(now() - began));
    return 0;
}
