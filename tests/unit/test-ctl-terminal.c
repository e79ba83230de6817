/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "ctl/terminal.h"
#include "test.h"

/* Is the terminal as a shell wants it? */
static bool is_cooked(int fd) {
        struct termios t;

        ASSERT_OK(tcgetattr(fd, &t));
        return (t.c_lflag & (ICANON | ECHO | ISIG)) == (ICANON | ECHO | ISIG) && (t.c_oflag & OPOST);
}

/* Runs end in a child whose standard streams are a terminal made raw; tells what is left of the terminal. */
static bool cooked_after(void (*end)(void)) {
        int terminal, other, ready[2];
        bool cooked;
        pid_t pid;
        char c;

        ASSERT_OK(openpty(&other, &terminal, NULL, NULL, NULL));
        ASSERT_OK(pipe2(ready, O_CLOEXEC));
        ASSERT_TRUE(is_cooked(terminal));
        pid = fork();
        if (pid == 0) {
                struct rlimit none = {};

                (void) setrlimit(RLIMIT_CORE, &none);
                for (int sig = 1; sig < 32; sig++) /* of the sanitizers */
                        (void) signal(sig, SIG_DFL);
                for (int fd = 0; fd < 3; fd++)
                        (void) dup2(terminal, fd);
                if (!terminal_is_ours() || terminal_make_raw() < 0 || is_cooked(terminal))
                        _exit(99);
                (void) !write(ready[1], "", 1);
                end();
                _exit(98);
        }
        ASSERT_EQ(read(ready[0], &c, 1), 1); /* raw by now, so that a cooked one is a restored one */
        ASSERT_EQ(waitpid(pid, NULL, 0), pid);
        cooked = is_cooked(terminal);
        close_fd(ready[0]);
        close_fd(ready[1]);
        close_fd(terminal);
        close_fd(other);
        return cooked;
}

static void end_restored(void) {
        terminal_restore();
        _exit(0);
}

static void end_exit(void) {
        exit(0);
}

static void end_segv(void) {
        (void) raise(SIGSEGV);
}

static void end_abort(void) {
        abort();
}

static void end_quit(void) {
        (void) raise(SIGQUIT);
}

static void end_again(void) {
        (void) terminal_make_raw(); /* twice, as after a stop: what is saved is still the first one */
        terminal_restore();
        (void) terminal_make_raw();
        (void) raise(SIGBUS);
}

static void end_kill(void) {
        (void) raise(SIGKILL);
}

TEST(restored_in_every_case) {
        ASSERT_TRUE(cooked_after(end_restored));
        ASSERT_TRUE(cooked_after(end_exit));
        ASSERT_TRUE(cooked_after(end_segv));
        ASSERT_TRUE(cooked_after(end_abort));
        ASSERT_TRUE(cooked_after(end_quit));
        ASSERT_TRUE(cooked_after(end_again));
        ASSERT_FALSE(cooked_after(end_kill)); /* nothing helps there, and the test can see it */
}

TEST(escape_key) {
        static const struct {
                const char *typed; /* a chunk a second's tenth, '^' stands for the key */
                uint64_t step_usec;
                bool seen;
        } cases[] = {
                { "^^^", 100 * USEC_PER_MSEC, true },     { "^^", 100 * USEC_PER_MSEC, false },
                { "a^b^c^", 100 * USEC_PER_MSEC, false }, { "^^a^^^", 100 * USEC_PER_MSEC, true },
                { "^^^", USEC_PER_SEC, false },           { "^^^^^", 400 * USEC_PER_MSEC, true },
                { "^^^", 500 * USEC_PER_MSEC, true },     { "^^^", 501 * USEC_PER_MSEC, false },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t now = USEC_PER_SEC;
                EscapeKey k = {};
                bool seen = false;

                for (const char *p = cases[i].typed; *p && !seen; p++, now += cases[i].step_usec) {
                        char c = *p == '^' ? ESCAPE_KEY : *p;
                        size_t n;

                        seen = escape_key_seen(&k, &c, 1, now, &n);
                        ASSERT_EQ(n, seen ? 0 : 1);
                }
                if (seen != cases[i].seen)
                        fail_msg("%s", cases[i].typed);
        }
}

TEST(escape_key_in_one_chunk) {
        static const char typed[] = { 'a', ESCAPE_KEY, ESCAPE_KEY, ESCAPE_KEY, 'b' };
        EscapeKey k = {};
        size_t n;

        ASSERT_TRUE(escape_key_seen(&k, typed, sizeof(typed), 1, &n));
        ASSERT_EQ(n, 3);
}

TEST(size) {
        int terminal, other, saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        struct winsize size = { .ws_col = 132, .ws_row = 50 };
        uint32_t cols, rows;

        ASSERT_OK(openpty(&other, &terminal, NULL, NULL, &size));
        (void) fflush(stdout);
        ASSERT_OK(dup2(terminal, STDOUT_FILENO));
        terminal_size(&cols, &rows);
        ASSERT_EQ(cols, 132);
        ASSERT_EQ(rows, 50);

        size = (struct winsize) { .ws_col = UINT16_MAX, .ws_row = UINT16_MAX };
        ASSERT_OK(ioctl(terminal, TIOCSWINSZ, &size));
        terminal_size(&cols, &rows);
        ASSERT_EQ(cols, PTY_COLS_MAX);
        ASSERT_EQ(rows, PTY_ROWS_MAX);

        size = (struct winsize) {};
        ASSERT_OK(ioctl(terminal, TIOCSWINSZ, &size));
        terminal_size(&cols, &rows);
        ASSERT_EQ(cols, 80);
        ASSERT_EQ(rows, 24);
        ASSERT_OK(dup2(saved, STDOUT_FILENO));
        close_fd(saved);
        close_fd(terminal);
        close_fd(other);
}
