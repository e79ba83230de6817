/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

TEST(close) {
        int fds[3] = { -EBADF, open("/dev/null", O_RDONLY), open("/dev/null", O_RDONLY) };

        errno = ERANGE;
        ASSERT_EQ(close_fd(-EBADF), -EBADF);
        ASSERT_EQ(close_fd(4095), -EBADF);
        ASSERT_EQ(errno, ERANGE);
        close_many(fds, 3);
        for (size_t i = 0; i < 3; i++)
                ASSERT_EQ(fds[i], -EBADF);
}

TEST(flags) {
        _cleanup_close_ int fd = open("/dev/null", O_RDONLY);

        ASSERT_OK(fd_nonblock(fd, true));
        ASSERT_TRUE(fcntl(fd, F_GETFL) & O_NONBLOCK);
        ASSERT_OK(fd_nonblock(fd, false));
        ASSERT_FALSE(fcntl(fd, F_GETFL) & O_NONBLOCK);
        ASSERT_OK(fd_cloexec(fd, true));
        ASSERT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
        ASSERT_OK(fd_cloexec(fd, false));
        ASSERT_EQ(fcntl(fd, F_GETFD), 0);
        ASSERT_EQ(fd_nonblock(-EBADF, true), -EBADF);
        ASSERT_EQ(fd_cloexec(-EBADF, true), -EBADF);

        fd = fd_move_above(fd, 100);
        ASSERT_TRUE(fd >= 100);
        ASSERT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
        ASSERT_EQ(fd_move_above(fd, 10), fd);
        ASSERT_EQ(fd_move_above(fd, INT32_MAX), -EINVAL);
        ASSERT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

TEST(read_and_write) {
        char buffer[8];
        int fds[2];

        ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
        ASSERT_OK(write_all(fds[1], "abc", 3));
        fds[1] = close_fd(fds[1]);
        ASSERT_EQ(read_full(fds[0], buffer, 2), 2);
        ASSERT_EQ(read_full(fds[0], buffer, sizeof(buffer)), 1);
        ASSERT_EQ(read_full(fds[0], buffer, sizeof(buffer)), 0);
        ASSERT_EQ(write_all(fds[0], "x", 1), -EBADF);
        ASSERT_EQ(read_full(-EBADF, buffer, 1), -EBADF);
        close_many(fds, 2);
}

TEST(unix_sockets) {
        _cleanup_close_ int dir = -EBADF, listener = -EBADF, client = -EBADF, server = -EBADF;
        char path[] = "/tmp/foundation-test-fd-XXXXXX", name[120];
        struct stat st;
        uid_t uid;

        ASSERT_NOT_NULL(mkdtemp(path));
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        ASSERT_EQ(unix_connect(dir, "s", SOCK_STREAM), -ENOENT);
        listener = unix_listen(dir, "s", SOCK_STREAM, 0600, 4);
        ASSERT_OK(listener);
        ASSERT_EQ(fstatat(dir, "s", &st, 0), 0);
        ASSERT_EQ(st.st_mode, S_IFSOCK | 0600);

        client = unix_connect(dir, "s", SOCK_STREAM);
        ASSERT_OK(client);
        ASSERT_TRUE(fcntl(client, F_GETFL) & O_NONBLOCK);
        server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        ASSERT_OK(peer_uid(server, &uid));
        ASSERT_EQ(uid, geteuid());
        ASSERT_EQ(peer_uid(dir, &uid), -ENOTSOCK);

        /* a stale one is replaced, a file is not */
        listener = close_fd(listener);
        ASSERT_EQ(unix_connect(dir, "s", SOCK_STREAM), -ECONNREFUSED);
        listener = unix_listen(dir, "s", SOCK_STREAM, 0666, 4);
        ASSERT_OK(listener);
        ASSERT_EQ(fstatat(dir, "s", &st, 0), 0);
        ASSERT_EQ(st.st_mode, S_IFSOCK | 0666);
        ASSERT_OK(write_file_atomic_at(dir, "f", "", 0, 0600));
        ASSERT_EQ(unix_listen(dir, "f", SOCK_STREAM, 0600, 4), -EADDRINUSE);

        ASSERT_EQ(unix_listen(dir, "../x", SOCK_STREAM, 0600, 4), -EINVAL);
        ASSERT_EQ(unix_listen(dir, "", SOCK_STREAM, 0600, 4), -EINVAL);
        memset(name, 'a', sizeof(name));
        name[sizeof(name) - 1] = 0;
        ASSERT_EQ(unix_connect(dir, name, SOCK_STREAM), -ENAMETOOLONG);
        ASSERT_EQ(unix_connect(AT_FDCWD, name, SOCK_STREAM), -ENAMETOOLONG);
        ASSERT_EQ(unix_connect(AT_FDCWD, "nothing-here", SOCK_STREAM), -ENOENT);

        ASSERT_OK(remove_tree_at(AT_FDCWD, path));
}

TEST(memfd) {
        _cleanup_close_ int fd = memfd_from("x", "abc", 3);
        char buffer[8];

        ASSERT_OK(fd);
        ASSERT_EQ(read_full(fd, buffer, sizeof(buffer)), 3);
        ASSERT_EQ(write_all(fd, "x", 1), -EPERM);
        ASSERT_EQ(ftruncate(fd, 0), -1);
}

static pid_t spawn(int status, int sig) {
        pid_t pid = fork();

        if (pid == 0) {
                if (sig > 0)
                        (void) raise(sig);
                for (;;) {
                        if (status >= 0)
                                _exit(status);
                        (void) pause();
                }
        }

        return pid;
}

static int reap(int pidfd, int *ret_status) {
        for (;;) {
                int r = pidfd_reap(pidfd, ret_status);

                if (r != 0)
                        return r;
                (void) usleep(1000);
        }
}

TEST(pidfds) {
        int status = 4711;

        for (int i = 0; i < 3; i++) {
                _cleanup_close_ int pidfd = -EBADF;
                pid_t pid = spawn(i == 0 ? 7 : -1, i == 1 ? SIGKILL : 0);

                pidfd = pidfd_open_checked(pid);
                ASSERT_OK(pidfd);
                if (i == 2) {
                        ASSERT_EQ(pidfd_reap(pidfd, &status), 0);
                        ASSERT_OK(pidfd_kill(pidfd, SIGTERM));
                }

                ASSERT_EQ(reap(pidfd, &status), 1);
                if (i == 0)
                        ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
                else
                        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == (i == 1 ? SIGKILL : SIGTERM));

                /* nobody's child any more */
                ASSERT_EQ(pidfd_reap(pidfd, &status), 1);
                ASSERT_EQ(status, -1);
                ASSERT_EQ(pidfd_kill(pidfd, SIGTERM), -ESRCH);
                ASSERT_EQ(pidfd_open_checked(pid), -ESRCH);
        }

        ASSERT_EQ(pidfd_reap(-EBADF, &status), -EINVAL);
        ASSERT_EQ(pidfd_open_checked(-1), -EINVAL);
}

TEST(not_our_child) {
        _cleanup_close_ int pidfd = pidfd_open_checked(getppid());
        int status;

        ASSERT_EQ(pidfd_reap(pidfd, &status), 0);
}

TEST(clocks) {
        uint64_t a = now_usec(CLOCK_MONOTONIC), b = now_usec(CLOCK_MONOTONIC);

        ASSERT_TRUE(a > 0 && b >= a && b - a < USEC_PER_SEC);
        ASSERT_TRUE(now_usec(CLOCK_REALTIME) > UINT64_C(1700000000) * USEC_PER_SEC);
}
