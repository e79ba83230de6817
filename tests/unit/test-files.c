/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/mman.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

static char path[64];

static int make_dir(void) {
        int fd;

        strcpy(path, "/tmp/foundation-test-files-XXXXXX");
        ASSERT_NOT_NULL(mkdtemp(path));
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ASSERT_OK(fd);
        return fd;
}

static void remove_dir(int fd) {
        close_fd(fd);
        ASSERT_OK(remove_tree_at(AT_FDCWD, path));
        ASSERT_EQ(access(path, F_OK), -1);
}

TEST(beneath) {
        static const struct {
                const char *path;
                int r;
        } cases[] = {
                { "d/f", 0 },
                { "f", 0 },
                { "d/../f", 0 },
                { "../f", -EXDEV },
                { "d/../../f", -EXDEV },
                { "/etc/passwd", -EXDEV },
                { "absolute", -ELOOP },
                { "up", -ELOOP },
                { "inside", -ELOOP },
                { "to-d/f", -ELOOP },
                { "nothing", -ENOENT },
                { "", -ENOENT },
        };
        int dir = make_dir();

        ASSERT_EQ(mkdirat(dir, "d", 0700), 0);
        ASSERT_OK(write_file_atomic_at(dir, "f", "x", 1, 0600));
        ASSERT_EQ(symlinkat("/etc/passwd", dir, "absolute"), 0);
        ASSERT_EQ(symlinkat("../../etc/passwd", dir, "up"), 0);
        ASSERT_EQ(symlinkat("f", dir, "inside"), 0);
        ASSERT_EQ(symlinkat("d", dir, "to-d"), 0);
        close_fd(open_beneath(dir, "d/f", O_WRONLY | O_CREAT, 0640));

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                int fd = open_beneath(dir, cases[i].path, O_RDONLY, 0);

                ASSERT_EQ(MIN(fd, 0), cases[i].r);
                if (fd >= 0)
                        ASSERT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
                close_fd(fd);
        }

        remove_dir(dir);
}

TEST(read) {
        _cleanup_free_ char *text = NULL, *big = calloc(1, 100000);
        int dir = make_dir();
        size_t n = 4711;

        memset(big, 'x', 100000);
        ASSERT_OK(write_file_atomic_at(dir, "f", big, 100000, 0600));
        ASSERT_EQ(read_file_at(dir, "f", 99999, &text, &n), -E2BIG);
        ASSERT_NULL(text);
        ASSERT_EQ(n, 4711);
        ASSERT_OK(read_file_at(dir, "f", 100000, &text, &n));
        ASSERT_EQ(n, 100000);
        ASSERT_EQ(strlen(text), 100000);

        text = (free(text), NULL);
        ASSERT_OK(write_file_atomic_at(dir, "f", "", 0, 0600));
        ASSERT_OK(read_file_at(dir, "f", 0, &text, NULL));
        ASSERT_STREQ(text, "");

        text = (free(text), NULL);
        ASSERT_OK(read_file_at(AT_FDCWD, "/proc/self/status", 100000, &text, &n));
        ASSERT_NOT_NULL(strstr(text, "Pid:"));

        ASSERT_EQ(read_file_at(dir, "nothing", 10, &text, NULL), -ENOENT);
        ASSERT_EQ(read_file_at(dir, ".", 10, &text, NULL), -EISDIR);
        remove_dir(dir);
}

TEST(write) {
        _cleanup_free_ char *text = NULL;
        int dir = make_dir();
        struct stat st;

        ASSERT_OK(write_file_atomic_at(dir, "f", "one", 3, 0640));
        ASSERT_OK(write_file_atomic_at(dir, "f", "two", 3, 0644));
        ASSERT_EQ(fstatat(dir, "f", &st, 0), 0);
        ASSERT_EQ(st.st_mode & 07777, 0644);
        ASSERT_OK(read_file_at(dir, "f", 10, &text, NULL));
        ASSERT_STREQ(text, "two");

        ASSERT_EQ(write_file_atomic_at(dir, "a/b", "", 0, 0600), -EINVAL);
        ASSERT_EQ(write_file_atomic_at(dir, "", "", 0, 0600), -EINVAL);

        /* a directory in the way: nothing half done is left */
        ASSERT_EQ(mkdirat(dir, "d", 0700), 0);
        ASSERT_EQ(write_file_atomic_at(dir, "d", "x", 1, 0600), -EISDIR);
        ASSERT_EQ(unlinkat(dir, "f", 0), 0);
        ASSERT_EQ(unlinkat(dir, "d", AT_REMOVEDIR), 0);
        ASSERT_EQ(rmdir(path), 0);
        ASSERT_EQ(mkdir(path, 0700), 0);

        ASSERT_EQ(write_file_at(AT_FDCWD, "/nothing/here", "x", 1), -ENOENT);
        ASSERT_OK(write_file_at(AT_FDCWD, "/dev/null", "x", 1));
        remove_dir(dir);
}

TEST(directories) {
        _cleanup_free_ char *deep = NULL, *below_file = NULL;
        int dir = make_dir(), fd;
        struct stat st;

        deep = strjoin(path, "/a//b/c/");
        ASSERT_OK(mkdir_parents(deep, 0750));
        ASSERT_OK(mkdir_parents(deep, 0700));
        ASSERT_EQ(fstatat(dir, "a/b/c", &st, 0), 0);
        ASSERT_EQ(st.st_mode, S_IFDIR | 0750);

        ASSERT_OK(write_file_atomic_at(dir, "f", "", 0, 0600));
        below_file = strjoin(path, "/f/x");
        ASSERT_EQ(mkdir_parents(below_file, 0700), -ENOTDIR);
        below_file[strlen(below_file) - 2] = 0;
        ASSERT_EQ(mkdir_parents(below_file, 0700), -ENOTDIR);
        ASSERT_EQ(mkdir_parents("", 0700), -EINVAL);

        ASSERT_EQ(open_dir_at(dir, "new", false, 0), -ENOENT);
        fd = open_dir_at(dir, "new", true, 0711);
        ASSERT_OK(fd);
        ASSERT_OK(fsync_dir_of(fd));
        close_fd(fd);
        fd = open_dir_at(dir, "new", true, 0711);
        ASSERT_OK(fd);
        close_fd(fd);
        ASSERT_EQ(open_dir_at(dir, "f", true, 0700), -ENOTDIR);
        ASSERT_EQ(symlinkat("new", dir, "link"), 0);
        ASSERT_EQ(open_dir_at(dir, "link", true, 0700), -ENOTDIR);
        remove_dir(dir);
}

TEST(remove_tree) {
        int dir = make_dir(), deep, fd;

        ASSERT_OK(remove_tree_at(dir, "nothing"));
        ASSERT_EQ(remove_tree_at(dir, ".."), -EINVAL);
        ASSERT_EQ(remove_tree_at(dir, "."), -EINVAL);
        ASSERT_EQ(remove_tree_at(dir, ""), -EINVAL);

        /* a file, a link, and a tree with links out of it */
        ASSERT_OK(write_file_atomic_at(dir, "keep", "x", 1, 0600));
        ASSERT_EQ(symlinkat("keep", dir, "link"), 0);
        ASSERT_OK(remove_tree_at(dir, "link"));
        ASSERT_EQ(mkdirat(dir, "t", 0700), 0);
        ASSERT_EQ(symlinkat("..", dir, "t/up"), 0);
        ASSERT_EQ(symlinkat("../keep", dir, "t/keep"), 0);
        ASSERT_EQ(mkdirat(dir, "t/closed", 0), 0);
        ASSERT_EQ(mkdirat(dir, "t/.removed-0", 0700), 0);

        /* deeper than there are descriptors, longer than PATH_MAX */
        deep = openat(dir, "t", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (unsigned i = 0; i < 2000; i++) {
                ASSERT_EQ(mkdirat(deep, "directory", 0700), 0);
                close_fd(openat(deep, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0400));
                fd = openat(deep, "directory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                close_fd(deep);
                deep = fd;
        }
        close_fd(deep);

        ASSERT_OK(remove_tree_at(dir, "t"));
        ASSERT_EQ(faccessat(dir, "t", F_OK, 0), -1);
        ASSERT_EQ(faccessat(dir, "keep", F_OK, 0), 0);
        ASSERT_OK(remove_tree_at(dir, "keep"));
        remove_dir(dir);
}

TEST(sparse_copy) {
        _cleanup_close_ int dir = make_dir(), from = -EBADF, to = -EBADF, full = -EBADF;
        _cleanup_free_ char *text = NULL;
        struct stat st;
        size_t n;

        from = openat(dir, "from", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        to = openat(dir, "to", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        full = memfd_create("full", MFD_CLOEXEC);
        ASSERT_OK(write_all(to, "what was here before and is longer", 34));
        ASSERT_OK(write_all(full, "what was here before and is longer", 34));

        ASSERT_EQ(ftruncate(from, 64 * (off_t) MIB), 0);
        ASSERT_EQ(pwrite(from, "one", 3, 8 * (off_t) MIB), 3);
        ASSERT_EQ(pwrite(from, "two", 3, 64 * (off_t) MIB - 3), 3);

        ASSERT_OK(copy_sparse(from, to));
        ASSERT_OK(copy_sparse(from, full)); /* another file system */
        for (int i = 0; i < 2; i++) {
                int fd = i ? full : to;

                ASSERT_EQ(fstat(fd, &st), 0);
                ASSERT_EQ(st.st_size, 64 * MIB);
                ASSERT_TRUE((uint64_t) st.st_blocks * 512 < MIB);
                ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
                ASSERT_OK(read_fd(fd, 64 * MIB, &text, &n));
                ASSERT_EQ(n, 64 * MIB);
                ASSERT_EQ(memcmp(text, "\0\0\0\0", 4), 0);
                ASSERT_EQ(memcmp(text + 8 * MIB, "one", 4), 0);
                ASSERT_EQ(memcmp(text + 64 * MIB - 4, "\0two", 4), 0);
                text = (free(text), NULL);
        }

        ASSERT_EQ(ftruncate(from, 0), 0);
        ASSERT_OK(copy_sparse(from, to));
        ASSERT_EQ(fstat(to, &st), 0);
        ASSERT_EQ(st.st_size, 0);
        ASSERT_EQ(copy_sparse(-EBADF, to), -EBADF);
        remove_dir(TAKE_FD(dir));
}

TEST(free_space) {
        _cleanup_close_ int dir = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        ASSERT_TRUE(disk_free_bytes(dir) > MIB);
        ASSERT_EQ(disk_free_bytes(-EBADF), 0);
}
