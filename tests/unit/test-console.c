/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "monitor/console.h"
#include "tests/unit/test.h"

typedef struct Rig {
        sd_event *event;
        Console *console;
        int ring; /* a second descriptor of the file */
        int guest;
} Rig;

static void rig_init(Rig *r) {
        int fds[2], fd = memfd_create("ring", MFD_CLOEXEC);

        ASSERT_OK(fd);
        *r = (Rig) { .ring = dup(fd) };
        ASSERT_OK(sd_event_new(&r->event));
        ASSERT_OK(console_new(r->event, fd, &r->console));
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
        ASSERT_OK(console_attach(r->console, fds[0]));
        r->guest = fds[1];
}

static void rig_done(Rig *r) {
        r->console = console_free(r->console);
        r->event = sd_event_unref(r->event);
        close_many((int[]) { r->ring, r->guest }, 2);
}

static void turn(Rig *r) {
        for (unsigned i = 0; i < 64; i++)
                if (sd_event_run(r->event, 0) <= 0)
                        return;
}

static size_t ring_read(const Rig *r, char *ret, size_t n) {
        ssize_t k = pread(r->ring, ret, n - 1, 0);

        ASSERT_OK(k);
        ret[k] = 0;
        return (size_t) k;
}

static void say(Rig *r, char c, size_t n) {
        char data[4096];

        memset(data, c, sizeof(data));
        while (n > 0) {
                ssize_t k = write(r->guest, data, MIN(n, sizeof(data)));

                if (k > 0)
                        n -= (size_t) k;
                turn(r);
        }
}

TEST(text_is_kept_and_bounded) {
        static char text[2 * CONSOLE_RING_BYTES];
        struct stat st;
        Rig r;
        size_t n;

        rig_init(&r);
        say(&r, 'a', 5);
        n = ring_read(&r, text, sizeof(text));
        ASSERT_EQ(n, 5);
        ASSERT_STREQ(text, "aaaaa");

        say(&r, 'b', CONSOLE_RING_BYTES);
        say(&r, 'c', 10);
        n = ring_read(&r, text, sizeof(text));
        ASSERT_TRUE(n >= CONSOLE_RING_BYTES / 2 && n <= CONSOLE_RING_BYTES);
        ASSERT_NULL(strchr(text, 'a'));
        ASSERT_STREQ(text + n - 11, "bcccccccccc");
        ASSERT_OK(fstat(r.ring, &st));
        ASSERT_TRUE((uint64_t) st.st_size <= CONSOLE_RING_BYTES);
        rig_done(&r);
}

TEST(flood_is_dropped_and_counted) {
        struct stat st;
        Rig r;

        rig_init(&r);
        say(&r, 'x', 4 * MIB);
        ASSERT_TRUE(console_dropped_bytes(r.console) > 2 * MIB);
        ASSERT_TRUE(console_dropped_bytes(r.console) <= 3 * MIB);
        ASSERT_OK(fstat(r.ring, &st));
        ASSERT_TRUE((uint64_t) st.st_size <= CONSOLE_RING_BYTES);
        rig_done(&r);
}

TEST(readers_get_past_and_present) {
        char text[64] = {};
        int fd = -EBADF;
        Rig r;

        rig_init(&r);
        say(&r, 'p', 3);
        ASSERT_OK(console_open_reader(r.console, &fd));
        turn(&r);
        say(&r, 'q', 3);
        ASSERT_EQ(read(fd, text, sizeof(text)), 6);
        ASSERT_STREQ(text, "pppqqq");
        (void) close_fd(fd);
        rig_done(&r);
}

TEST(slow_reader_misses_but_holds_nobody_up) {
        static char data[CONSOLE_RING_BYTES];
        int fd = -EBADF;
        ssize_t n, total = 0;
        Rig r;

        rig_init(&r);
        ASSERT_OK(console_open_reader(r.console, &fd));
        say(&r, 's', CONSOLE_RING_BYTES * 3);
        ASSERT_EQ(console_dropped_bytes(r.console), 0);
        ASSERT_OK(fd_nonblock(fd, true));
        while ((n = read(fd, data, sizeof(data))) > 0) {
                total += n;
                turn(&r);
        }
        ASSERT_TRUE(total > 64 * 1024 && (uint64_t) total <= 2 * CONSOLE_RING_BYTES);
        (void) close_fd(fd);
        rig_done(&r);
}

/* Who wants no more than the past finds it in the pipe. */
TEST(reader_begins_with_the_past) {
        static char data[CONSOLE_RING_BYTES];
        int fd = -EBADF;
        Rig r;

        rig_init(&r);
        say(&r, 'p', CONSOLE_RING_BYTES);
        ASSERT_OK(console_open_reader(r.console, &fd));
        ASSERT_OK(fd_nonblock(fd, true));
        ASSERT_EQ(read_full(fd, data, sizeof(data)), CONSOLE_RING_BYTES);
        (void) close_fd(fd);
        rig_done(&r);
}

TEST(reader_limit_and_leave) {
        int fds[CONSOLE_READERS_MAX], fd = -EBADF;
        Rig r;

        rig_init(&r);
        for (size_t i = 0; i < CONSOLE_READERS_MAX; i++)
                ASSERT_OK(console_open_reader(r.console, &fds[i]));
        ASSERT_EQ(console_open_reader(r.console, &fd), -EMFILE);
        fds[0] = close_fd(fds[0]);
        turn(&r);
        ASSERT_OK(console_open_reader(r.console, &fds[0]));
        close_many(fds, CONSOLE_READERS_MAX);
        rig_done(&r);
}
