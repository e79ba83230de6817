/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

static char line[8192];

/* Runs the statement with stderr caught; what it wrote is in 'line'. */
#define CATCH(statement)                                                        \
        do {                                                                    \
                int fds_[2], saved_ = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); \
                ssize_t n_;                                                     \
                ASSERT_EQ(pipe2(fds_, O_CLOEXEC | O_NONBLOCK), 0);              \
                (void) dup2(fds_[1], STDERR_FILENO);                            \
                statement;                                                      \
                (void) dup2(saved_, STDERR_FILENO);                             \
                n_ = read(fds_[0], line, sizeof(line) - 1);                     \
                line[MAX(n_, (ssize_t) 0)] = 0;                                 \
                close_fd(saved_);                                               \
                close_many(fds_, 2);                                            \
        } while (0)

TEST(levels) {
        static const struct {
                const char *s;
                int r;
        } cases[] = {
                { "emerg", 0 },    { "alert", 1 },   { "crit", 2 },       { "err", 3 },
                { "error", 3 },    { "warning", 4 }, { "notice", 5 },     { "info", 6 },
                { "debug", 7 },    { "0", 0 },       { "7", 7 },          { "8", -EINVAL },
                { "77", -EINVAL }, { "", -EINVAL },  { "Info", -EINVAL }, { NULL, -EINVAL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                ASSERT_EQ(log_level_from_string(cases[i].s), cases[i].r);
        for (int level = LOG_EMERG; level <= LOG_DEBUG; level++)
                ASSERT_EQ(log_level_from_string(log_level_to_string(level)), level);
}

TEST(environment) {
        (void) unsetenv("WRENN_LOG_LEVEL");
        (void) setenv("SYSTEMD_LOG_LEVEL", "err", 1);
        log_open("test");
        ASSERT_EQ(log_get_level(), LOG_ERR);
        (void) setenv("WRENN_LOG_LEVEL", "debug", 1);
        log_open("test");
        ASSERT_EQ(log_get_level(), LOG_DEBUG);
        (void) setenv("WRENN_LOG_LEVEL", "loud", 1);
        log_open("test");
        ASSERT_EQ(log_get_level(), LOG_DEBUG);
        (void) unsetenv("WRENN_LOG_LEVEL");
        (void) unsetenv("SYSTEMD_LOG_LEVEL");
        log_set_level(LOG_INFO);
}

TEST(plain) {
        (void) unsetenv("INVOCATION_ID");
        (void) unsetenv("JOURNAL_STREAM");
        log_open("test");
        CATCH(log_info("Hello '%s'.", "x"));
        ASSERT_STREQ(line, "test: Hello 'x'.\n");
        CATCH(log_debug("quiet"));
        ASSERT_STREQ(line, "");
        CATCH(log_info("a\nb\033[0m\tc"));
        ASSERT_STREQ(line, "test: a?b?[0m\tc\n");
}

TEST(prefix) {
        (void) setenv("INVOCATION_ID", "x", 1);
        log_open("test");
        CATCH(log_warning("Hello."));
        ASSERT_STREQ(line, "<4>Hello.\n");
        CATCH((void) log_capsule("cl-x", LOG_NOTICE, 0, "Hello."));
        ASSERT_STREQ(line, "<5>cl-x: Hello.\n");
        CATCH((void) log_capsule(NULL, LOG_NOTICE, 0, "Hello."));
        ASSERT_STREQ(line, "<5>Hello.\n");
        (void) unsetenv("INVOCATION_ID");
        log_open("test");
}

TEST(errors) {
        int r = 0;

        errno = ERANGE;
        CATCH(r = log_error_errno(-ENOENT, "Failed to open '%s': %m", "f"));
        ASSERT_EQ(r, -ENOENT);
        ASSERT_STREQ(line, "test: Failed to open 'f': No such file or directory\n");
        CATCH(r = log_error_errno(ENOENT, "x: %m"));
        ASSERT_EQ(r, -ENOENT);
        CATCH(r = log_debug_errno(-EIO, "x: %m"));
        ASSERT_EQ(r, -EIO);
        ASSERT_STREQ(line, "");

        errno = ERANGE;
        CATCH(errno = ERANGE; log_info("x"); ASSERT_EQ(errno, ERANGE));
}

TEST(long_lines_are_cut) {
        char text[5000];

        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = 0;
        CATCH(log_info("%s", text));
        ASSERT_TRUE(strlen(line) > 2000 && strlen(line) < 2200);
        ASSERT_STREQ(endswith(line, "x\n"), "x\n");
}

/* A full pipe that nobody reads: the line is lost, the program goes on. */
TEST(never_blocks) {
        uint64_t n_dropped = log_dropped();
        int fds[2], saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

        ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
        (void) dup2(fds[1], STDERR_FILENO);
        for (unsigned i = 0; i < 10000; i++)
                log_info("line %u of many", i);
        (void) dup2(saved, STDERR_FILENO);
        ASSERT_TRUE(log_dropped() > n_dropped);
        close_fd(saved);
        close_many(fds, 2);
}

/* A child with a /run of its own plays journald; what reached its socket goes into the pipe. */
static int play_journal(int out) {
        static const struct sockaddr_un address = { .sun_family = AF_UNIX,
                                                    .sun_path = "/run/systemd/journal/socket" };
        char stream[64];
        struct stat st;
        int fd;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
                return 77;
        if (mkdir_parents("/run/systemd/journal", 0755) < 0 || fstat(STDERR_FILENO, &st) < 0)
                return 1;

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return 1;

        (void) snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long) st.st_dev,
                        (unsigned long long) st.st_ino);
        (void) setenv("JOURNAL_STREAM", stream, 1);
        log_open("test");
        (void) log_capsule("cl-x", LOG_ERR, -ENOENT, "two\nlines: %m");

        for (;;) {
                ssize_t n = recv(fd, line, sizeof(line), 0);

                if (n < 0)
                        break;
                if (write_all(out, line, (size_t) n) < 0)
                        return 1;
        }

        /* nobody reads: dropped, not waited for */
        for (unsigned i = 0; i < 10000 && log_dropped() == 0; i++)
                log_info("line %u of many", i);
        return log_dropped() > 0 ? 0 : 1;
}

TEST(journal) {
        static const char message[] =
                        "MESSAGE\n\x2a\0\0\0\0\0\0\0cl-x: two\nlines: No such file or directory\n";
        int fds[2], status;
        ssize_t n;
        pid_t pid;

        ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0)
                _exit(play_journal(fds[1]));

        fds[1] = close_fd(fds[1]);
        n = read_full(fds[0], line, sizeof(line) - 1);
        fds[0] = close_fd(fds[0]);
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                skip();

        ASSERT_EQ(status, 0);
        ASSERT_TRUE(n > 0);
        line[n] = 0;
        ASSERT_NOT_NULL(memmem(line, (size_t) n, message, sizeof(message) - 1));
        ASSERT_NOT_NULL(strstr(line, "PRIORITY=3\n"));
        ASSERT_NOT_NULL(strstr(line, "SYSLOG_IDENTIFIER=test\n"));
        ASSERT_NOT_NULL(strstr(line, "CODE_FUNC=play_journal\n"));
        ASSERT_NOT_NULL(strstr(line, "ERRNO=2\n"));
        ASSERT_NOT_NULL(memmem(line, (size_t) n, "\nWRENN_CAPSULE_ID=cl-x\n", 23));
}
