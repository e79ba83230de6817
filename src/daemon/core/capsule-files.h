/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Files and processes of a running capsule, as its agent has them (docs/PROTOCOLS.md §3). Paths are the
 * agent's: absolute, or relative to the default user's home. Each call counts as activity; its errors are
 * the agent's, besides FAULT_INVALID_STATE, FAULT_INVALID_ARGS and FAULT_AGENT.
 */

#include "daemon/core/capsule-transfer.h"
#include "daemon/core/capsule.h"

/* Strings are valid UTF-8, never NULL. */
typedef struct FileEntry {
        char *name, *path, *type; /* type: "file", "directory", "symlink" */
        char *path_base64;        /* NULL: path is what it is */
        uint64_t size;
        uint32_t mode; /* permission bits */
        char *permissions, *owner, *group;
        uint64_t modified_sec;
        char *symlink_target; /* NULL: none */
} FileEntry;

typedef struct ProcessEntry {
        uint32_t pid;
        char *tag, *command;
        char **args;
        bool pty;
} ProcessEntry;

/* One each, from the loop, before done; < 0 ends the call with that errno. */
typedef int (*FileEntryFunc)(const FileEntry *e, void *userdata);
typedef int (*ProcessEntryFunc)(const ProcessEntry *e, void *userdata);

/* done of all these: as in style.md §7. */
int capsule_list_processes(Capsule *c, ProcessEntryFunc each, CapsuleDone done, void *userdata,
                           Fault *reterr);
int capsule_signal_process(Capsule *c, const char *selector, int signal, CapsuleDone done, void *userdata,
                           Fault *reterr);
int capsule_resize_terminal(Capsule *c, const char *selector, uint32_t cols, uint32_t rows, CapsuleDone done,
                            void *userdata, Fault *reterr);

/* FAULT_TOO_LARGE beyond DIRECTORY_ENTRIES_MAX. depth 1: the directory itself. */
int capsule_list_directory(Capsule *c, const char *path, uint32_t depth, FileEntryFunc each,
                           CapsuleDone done, void *userdata, Fault *reterr);
int capsule_stat_path(Capsule *c, const char *path, FileEntryFunc each, CapsuleDone done, void *userdata,
                      Fault *reterr);
int capsule_make_directory(Capsule *c, const char *path, CapsuleDone done, void *userdata, Fault *reterr);
int capsule_remove_path(Capsule *c, const char *path, CapsuleDone done, void *userdata, Fault *reterr);
int capsule_rename_path(Capsule *c, const char *from, const char *to, bool overwrite, CapsuleDone done,
                        void *userdata, Fault *reterr);

typedef struct OpenFileSpec {
        const char *path;
        bool write;
        uint32_t mode;           /* of a new file; 0: 0644 */
        uint64_t offset, length; /* to read; length 0: to the end */
} OpenFileSpec;
/* fd: the read end of a pipe, or a socket to write to (see the interface's XML); borrowed. It outlives us.
 */
typedef void (*FileDone)(Capsule *c, int r, int fd, const Fault *fault, void *userdata);
int capsule_open_file(Capsule *c, const OpenFileSpec *spec, FileDone done, void *userdata, Fault *reterr);

/* "/files/tar?path=…" of resource "/files/tar"; NULL with reterr set. */
char* capsule_file_request(const char *resource, const char *path, Fault *reterr);
