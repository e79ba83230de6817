/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/stat.h>

#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "agent/file-tar.h"
#include "basic/fd.h"
#include "shared/tar.h"

/* What fails here fails in the capsule. */
static int capsules_fault(int r, Fault *fault) {
        if (r < 0 && fault->code == FAULT_NO_SPACE)
                fault->code = FAULT_AGENT_NO_SPACE;
        else if (r < 0 && fault->code == FAULT_INTERNAL)
                fault->code = FAULT_AGENT;
        return r;
}

int file_tar_pack_main(void *argument, int input, int output, Fault *reterr) {
        _cleanup_free_ char *parent = NULL, *name = NULL;
        _cleanup_close_ int fd = -EBADF;
        const char *path = argument;
        TarResult result;
        struct stat st;
        int r;

        if (stat(path, &st) < 0)
                return file_fault(reterr, -errno, /* making= */ false, "pack", path);
        r = file_path_split(path, &parent, &name);
        if (r < 0 && r != -EINVAL)
                return r;

        fd = S_ISDIR(st.st_mode) ? file_open_directory(path, reterr) : file_open(path, 0, reterr);
        if (fd < 0)
                return fd;

        r = tar_pack(fd, name ?: ".", output, /* progress= */ NULL, /* userdata= */ NULL, &result, reterr);
        return capsules_fault(r, reterr);
}

int file_tar_unpack_main(void *argument, int input, int output, Fault *reterr) {
        const FileUnpack *u = argument;
        TarOptions options = {
                .flags = TAR_FIFOS | TAR_FOLLOW | (u->keep_owners ? TAR_OWNERS | TAR_SET_ID : 0),
                .uid = u->user->uid,
                .gid = u->user->gid,
                .limits = TAR_LIMITS_COPY,
        };
        _cleanup_close_ int fd = -EBADF;
        TarResult result;
        bool made;
        int r;

        fd = file_make_directories(u->path, u->user, &made);
        if (fd < 0)
                return file_fault(reterr, fd, /* making= */ true, "unpack to", u->path);
        if (made)
                options.flags |= TAR_DIRECTORIES;

        r = tar_unpack(input, fd, &options, &result, reterr);
        return capsules_fault(r, reterr);
}
