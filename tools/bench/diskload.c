/* Loads a disk as a benchmark does, and says how fast it was. For the guests of tools/bench-disk.
 *
 * diskload DISK NAME read|write seq|rand BLOCK DEPTH START LENGTH SECONDS
 *
 * Keeps DEPTH direct requests of BLOCK bytes under way in the LENGTH bytes from START on, each block at most once, until
 * the time is up or no block is left; after writes the disk is flushed, and that counts. Prints one line:
 * "diskload: NAME requests=N bytes=N nanoseconds=N". All sizes are in bytes; LENGTH / BLOCK is a power of two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    printf("diskload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 10) {
        puts("diskload: wrong arguments");
        return 2;
    }
    int writes = !strcmp(argv[3], "write"), random = !strcmp(argv[4], "rand");
    uint64_t block = strtoull(argv[5], NULL, 0), depth = strtoull(argv[6], NULL, 0);
    uint64_t start = strtoull(argv[7], NULL, 0), blocks = strtoull(argv[8], NULL, 0) / block;
    uint64_t limit = strtoull(argv[9], NULL, 0) * 1000000000u;
    int fd = open(argv[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
    if (fd < 0)
        fail(argv[1]);
    char *buffers = mmap(NULL, block * depth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffers == MAP_FAILED)
        fail("mmap");
    memset(buffers, 0x5a, block * depth);
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, depth, &context))
        fail("io_setup");
    struct iocb *requests = calloc(depth, sizeof *requests), **list = calloc(depth, sizeof *list);
    struct io_event *events = calloc(depth, sizeof *events);
    if (!requests || !list || !events)
        fail("calloc");

    uint64_t began = now(), begun = 0, ended = 0, ready = depth, next = 0;
    for (uint64_t i = 0; i < depth; i++) {
        requests[i].aio_buf = (uintptr_t)(buffers + i * block);
        list[i] = &requests[i];
    }
    for (;;) {
        uint64_t count = 0;
        int open_for_more = now() - began < limit;
        for (; open_for_more && count < ready && begun < blocks; count++, begun++) {
            uint64_t at = next;
            /* A full-period generator: every block once, in no order that a reader ahead could follow. */
            next = random ? (next * 1664525u + 1013904223u) % blocks : next + 1;
            struct iocb *r = list[count];
            r->aio_fildes = fd;
            r->aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
            r->aio_nbytes = block;
            r->aio_offset = (int64_t)(start + at * block);
        }
        for (uint64_t done = 0; done < count;) {
            long n = syscall(SYS_io_submit, context, count - done, list + done);
            if (n <= 0)
                fail("io_submit");
            done += (uint64_t)n;
        }
        if (ended == begun)
            break;
        long n = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        if (n <= 0)
            fail("io_getevents");
        /* What was ready and not used stays behind what was used. */
        memmove(list, list + count, (ready - count) * sizeof *list);
        ready -= count;
        for (long i = 0; i < n; i++) {
            if (events[i].res != (int64_t)block) {
                errno = events[i].res < 0 ? (int)-events[i].res : EIO;
                fail("request");
            }
            list[ready++] = (struct iocb *)(uintptr_t)events[i].obj;
        }
        ended += (uint64_t)n;
    }
    if (writes && fdatasync(fd))
        fail("fdatasync");
    printf("diskload: %s requests=%llu bytes=%llu nanoseconds=%llu\n", argv[2], (unsigned long long)ended,
           (unsigned long long)(ended * block), (unsigned long long)(now() - began));
    return 0;
}
