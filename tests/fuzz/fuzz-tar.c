/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Any bytes as an archive: nothing appears or changes outside the directory it is unpacked into. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/tar.h"
#include "tests/fuzz/fuzz.h"

static unsigned count_entries(const char *path) {
        DIR *d = opendir(path);
        unsigned n = 0;

        assert(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        /* the last byte chooses: an import, a copy into a capsule, a copy out of one */
        static const TarFlags flags[] = { TAR_OWNERS | TAR_SET_ID | TAR_XATTRS | TAR_FIFOS | TAR_DIRECTORIES,
                                          TAR_FIFOS | TAR_FOLLOW, 0 };
        const TarOptions options = {
                .flags = flags[n > 0 ? data[n - 1] % ELEMENTSOF(flags) : 0],
                .uid = (uid_t) -1,
                .gid = (gid_t) -1,
                .limits = { .entries_max = 200,
                            .bytes_max = 1 * MIB,
                            .ratio_max = 100,
                            .ratio_free_bytes = 64 * KIB,
                            .id_max = IMPORT_ID_MAX,
                            .directories_max = 5 },
                .filters = &tar_filters,
        };
        _cleanup_close_ int fd = memfd_from("tar", data, n), dir_fd = -EBADF, root_fd = -EBADF;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char path[] = "/tmp/templates-fuzz-XXXXXX";
        TarResult result = {};
        struct stat st;
        int r;

        assert(fd >= 0 && mkdtemp(path));
        dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        root_fd = open_dir_at(dir_fd, "root", /* create= */ true, 0755);
        assert(root_fd >= 0 && write_file_atomic_at(dir_fd, "victim", "safe", 4, 0600) >= 0);

        log_set_level(LOG_CRIT);
        r = tar_unpack(fd, root_fd, &options, &result, &fault);
        assert(r >= 0 ? !fault_is_set(&fault) : fault_is_set(&fault));
        assert(r < 0 || result.n_entries <= options.limits.entries_max);

        assert(count_entries(path) == 4);
        assert(fstatat(dir_fd, "victim", &st, AT_SYMLINK_NOFOLLOW) >= 0);
        assert(S_ISREG(st.st_mode) && st.st_size == 4 && st.st_nlink == 1 && (st.st_mode & 07777) == 0600);
        assert(remove_tree_at(AT_FDCWD, path) >= 0);
        return 0;
}
