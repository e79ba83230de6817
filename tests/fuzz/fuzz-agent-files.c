/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Any bytes as what a request of /files says, as a path, as a file's name and as what a symlink holds. */

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "agent/file-entry.h"
#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "agent/request.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "tests/fuzz/fuzz.h"

static void fuzz_query(const char *text) {
        _cleanup_free_ char *query = strjoin("/files?", text), *path = NULL;
        uint64_t number;
        mode_t mode;

        if (request_parse_query(query, "path", &path) > 0)
                assert(strlen(path) < strlen(query));
        (void) request_parse_u64(query, "offset", 0, &number);
        if (request_parse_mode(query, "mode", 0644, &mode) >= 0)
                assert(mode <= 07777);
}

static void fuzz_path(const char *text) {
        _cleanup_free_ char *path = NULL, *parent = NULL, *name = NULL, *joined = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (file_path_resolve(text, "/home/user", &path, &fault) < 0) {
                assert(utf8_is_valid(fault.message, strlen(fault.message)));
                return;
        }
        assert(path[0] == '/' && strlen(path) < FILE_PATH_LEN_MAX);

        if (file_path_split(path, &parent, &name) < 0)
                return;
        assert(parent[0] == '/' && *name && !strchr(name, '/') && !streq(name, ".") && !streq(name, ".."));
        joined = file_path_join(parent, name);
        assert(joined[0] == '/' && strlen(joined) <= strlen(path) + 1);
}

/* The entry names the file so that it can be found again. */
static void check_entry(UserNames *names, int dir_fd, const char *directory, const char *name) {
        _cleanup_free_ char *path = file_path_join(directory, name), *text = NULL;
        _cleanup_json_ json_t *entry = NULL;
        _cleanup_free_ void *bytes = NULL;
        const char *base64;
        size_t n;

        assert(file_entry(names, dir_fd, name, path, &entry) >= 0);
        text = json_dumps(entry, JSON_COMPACT);
        assert(text && !strchr(text, '\n') && utf8_is_valid(text, strlen(text)));

        base64 = json_string_value(json_object_get(entry, "path_base64"));
        assert(!base64 == utf8_is_valid(path, strlen(path)));
        if (!base64) {
                assert(streq(json_string_value(json_object_get(entry, "path")), path));
                return;
        }
        assert(base64_decode(base64, strlen(base64), &bytes, &n) >= 0);
        assert(n == strlen(path) && memcmp(bytes, path, n) == 0);
}

static void fuzz_name(const char *name) {
        char directory[] = "/tmp/agent-files-fuzz-XXXXXX";
        _cleanup_(user_names_freep) UserNames *names = user_names_new();
        _cleanup_close_ int dir_fd = -EBADF;

        if (!*name || strlen(name) > NAME_MAX || strchr(name, '/') || streq(name, ".") || streq(name, ".."))
                return;

        assert(names && mkdtemp(directory));
        dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert(dir_fd >= 0);
        assert(symlinkat(name, dir_fd, "a link") >= 0 || errno == EEXIST);
        assert(mknodat(dir_fd, name, S_IFREG | 0600, 0) >= 0 || errno == EEXIST);
        check_entry(names, dir_fd, directory, name);
        check_entry(names, dir_fd, directory, "a link");
        assert(remove_tree_at(AT_FDCWD, directory) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = strndup((const char *) data, n);

        assert(text);
        fuzz_query(text);
        fuzz_path(text);
        fuzz_name(text);
        return 0;
}
