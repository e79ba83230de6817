/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A listing of the agent, whole and in pieces: what comes out of both is the same, and good JSON that passes
 * once more. First byte: the size of pieces.
 */

#include <string.h>

#include "rest/file-entry.h"
#include "tests/fuzz/fuzz.h"

static int read_list(FileList *l, const char *text, size_t n, size_t piece) {
        int r = 0;

        *l = (FileList) {};
        for (size_t i = 0; r >= 0 && i < n; i += piece)
                r = file_list_feed(l, text + i, MIN(piece, n - i));
        return r < 0 ? r : file_list_finish(l);
}

static void check_entries(const FileList *l) {
        json_t *root = json_loadb(l->text, l->n_text, JSON_REJECT_DUPLICATES, NULL), *entries, *entry;
        size_t i;

        assert(root);
        entries = json_object_get(root, "entries");
        assert(json_array_size(entries) == l->n_entries);
        json_array_foreach(entries, i, entry) {
                char *text = json_dumps(entry, JSON_COMPACT);
                json_t *again = NULL;

                assert(text && file_entry_parse(text, strlen(text), &again) >= 0);
                assert(json_equal(entry, again));
                json_decref(again);
                free(text);
        }
        json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        const char *text = (const char *) data + 1;
        FileList a, b;
        int r;

        if (n < 1)
                return 0;
        n--;

        r = read_list(&a, text, n, MAX(n, 1U));
        assert(r == read_list(&b, text, n, 1U + data[0]));
        assert(r == 0 || r == -EBADMSG || r == -E2BIG);
        if (r == 0) {
                assert(a.n_text == b.n_text && memcmp(a.text, b.text, a.n_text) == 0);
                check_entries(&a);
        }
        file_list_done(&a);
        file_list_done(&b);
        return 0;
}
