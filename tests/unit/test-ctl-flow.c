/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "ctl/display.h"
#include "ctl/flow.h"
#include "test.h"

static void make_pipe(int fds[2]) {
        ASSERT_OK(pipe2(fds, O_CLOEXEC));
}

/* A child that writes n bytes of a pattern into fd, or reads them to the end: its exit status says whether
 * all was right. */
static uint8_t pattern(size_t i) {
        return (uint8_t) (i * 7 + i / 251);
}

static pid_t fork_peer(int fd, size_t n, bool writes) {
        pid_t pid = fork();
        size_t i = 0;
        ssize_t k;

        if (pid != 0)
                return pid;
        for (int other = 3; other < 64; other++) /* the others' ends */
                if (other != fd)
                        (void) close(other);
        for (uint8_t buffer[3000]; writes ? i < n : true; i += (size_t) k) {
                for (size_t j = 0; j < sizeof(buffer) && writes; j++)
                        buffer[j] = pattern(i + j);
                k = writes ? write(fd, buffer, MIN(sizeof(buffer), n - i))
                           : read(fd, buffer, sizeof(buffer));
                if (k <= 0)
                        break;
                for (ssize_t j = 0; j < k && !writes; j++)
                        if (buffer[j] != pattern(i + (size_t) j))
                                _exit(2);
        }
        _exit(i == n ? 0 : 1);
}

static void expect_exit(pid_t pid, int expected) {
        int status;

        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFEXITED(status));
        ASSERT_EQ(WEXITSTATUS(status), expected);
}

/* Through pipes and sockets that are much smaller than what goes through. */
TEST(carries_all) {
        for (unsigned sockets = 0; sockets < 2; sockets++) {
                size_t n = 3 * MIB + 17;
                int in[2], out[2];
                pid_t writer, reader;
                uint64_t bytes;

                make_pipe(in);
                if (sockets)
                        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, out));
                else
                        make_pipe(out);
                writer = fork_peer(in[1], n, true);
                reader = fork_peer(out[0], n, false);
                in[1] = close_fd(in[1]);
                out[0] = close_fd(out[0]);
                ASSERT_OK(flow_run(in[0], out[1], NULL, NULL, &bytes));
                ASSERT_EQ(bytes, n);
                close_fd(in[0]);
                close_fd(out[1]);
                expect_exit(writer, 0);
                expect_exit(reader, 0);
        }
}

/* Regular files and /dev/null cannot be polled. */
TEST(files_are_always_ready) {
        int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        uint64_t bytes;
        char text[6];

        ASSERT_OK(write_all(in, "hello", 5));
        ASSERT_OK(lseek(in, 0, SEEK_SET));
        ASSERT_OK(flow_run(in, out, NULL, NULL, &bytes));
        ASSERT_EQ(bytes, 5);
        ASSERT_EQ(pread(out, text, sizeof(text), 0), 5);
        ASSERT_EQ(memcmp(text, "hello", 5), 0);
        ASSERT_OK(flow_run(null, out, NULL, NULL, &bytes));
        ASSERT_EQ(bytes, 0);
        ASSERT_OK(lseek(in, 0, SEEK_SET));
        ASSERT_OK(flow_run(in, null, NULL, NULL, &bytes));
        ASSERT_EQ(bytes, 5);
        close_fd(in);
        close_fd(out);
        close_fd(null);
}

TEST(closed_reader_is_epipe) {
        int in = open("/dev/zero", O_RDONLY | O_CLOEXEC), out[2];

        (void) signal(SIGPIPE, SIG_IGN);
        make_pipe(out);
        out[0] = close_fd(out[0]);
        ASSERT_EQ(flow_run(in, out[1], NULL, NULL, NULL), -EPIPE);
        (void) signal(SIGPIPE, SIG_DFL);
        close_fd(in);
        close_fd(out[1]);
}

static void on_done(Flow *f, int r, bool in_write, void *userdata) {
        *(int *) userdata = r;
}

/* A full pipe stops the reader, and what waits goes on when there is room. */
TEST(waits_for_a_slow_reader) {
        int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), out[2], ended = 1;
        char buffer[4096];
        size_t n_read = 0;
        Flow f = FLOW_NULL;
        uint64_t before;
        sd_event *e;

        make_pipe(out);
        ASSERT_OK(sd_event_new(&e));
        ASSERT_OK(flow_start(&f, e, zero, out[1], NULL, on_done, &ended));
        do {
                before = f.n_bytes;
                for (unsigned i = 0; i < 50; i++)
                        ASSERT_OK(sd_event_run(e, 0));
        } while (f.n_bytes > before);
        ASSERT_TRUE(f.n_bytes >= 4096);
        ASSERT_TRUE(f.n_bytes <= MIB);
        while (n_read < 2 * MIB) {
                ssize_t n = read(out[0], buffer, sizeof(buffer));

                ASSERT_TRUE(n > 0);
                n_read += (size_t) n;
                ASSERT_OK(sd_event_run(e, 0));
                ASSERT_OK(sd_event_run(e, 0));
        }
        ASSERT_EQ(ended, 1);
        flow_stop(&f);
        flow_stop(&f);
        ASSERT_EQ(ended, 1);
        sd_event_unref(e);
        close_fd(out[0]);
}

static int stop_at_x(void *userdata, char *data, size_t n, size_t *ret_n) {
        char *x = memchr(data, 'x', n);

        *ret_n = x ? (size_t) (x - data) : n;
        return x ? 1 : 0;
}

TEST(transform_ends_it) {
        int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
        uint64_t bytes;

        ASSERT_OK(write_all(in, "abcxdef", 7));
        ASSERT_OK(lseek(in, 0, SEEK_SET));
        ASSERT_OK(flow_run(in, out, stop_at_x, NULL, &bytes));
        ASSERT_EQ(bytes, 3);
        close_fd(in);
        close_fd(out);
}

/* Our own streams keep their modes: what we open again is another open file. */
TEST(dup_leaves_the_mode) {
        int fds[2], copy, saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);

        make_pipe(fds);
        ASSERT_OK(dup2(fds[0], STDIN_FILENO));
        copy = flow_dup(STDIN_FILENO);
        ASSERT_TRUE(copy >= 3);
        ASSERT_TRUE(fcntl(copy, F_GETFL) & O_NONBLOCK);
        ASSERT_FALSE(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK);
        close_fd(copy);

        (void) dup2(saved, STDIN_FILENO);
        close_fd(saved);
        close_fd(fds[0]);
        close_fd(fds[1]);
}

/* Chunks as they may come: characters are cut, escapes too. */
TEST(display) {
        static const char text[] = "gr\xc3\xbc\xc3\x9f\r\n\033[2Jx\\y\t\xff\xe2\x80\xae!";
        static const char shown[] = "gr\xc3\xbc\xc3\x9f\n\\x1b[2Jx\\y\t\\xff\\xe2\\x80\\xae!";

        for (size_t chunk = 1; chunk < sizeof(text); chunk++) {
                char out[sizeof(text) * FLOW_EXPANSION] = "", buffer[sizeof(text) * FLOW_EXPANSION];
                Display d = {};

                for (size_t i = 0; i < sizeof(text) - 1; i += chunk) {
                        size_t n = MIN(chunk, sizeof(text) - 1 - i);

                        memcpy(buffer, text + i, n);
                        ASSERT_EQ(display_transform(&d, buffer, n, &n), 0);
                        strncat(out, buffer, n);
                }
                ASSERT_STREQ(out, shown);
        }
}
