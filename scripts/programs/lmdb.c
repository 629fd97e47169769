// A program that writes an LMDB environment: "lmdb DIR map|file FROM TO" commits the transactions FROM to TO, each of which
// sets every one of KEYS keys to its number and prints the number when it is committed. With "map" it stores through the
// shared mapping (MDB_WRITEMAP) and syncs with msync(2), with "file" it uses pwrite(2) and reads through the mapping.
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 200 };

static void must(const char *what, int code) {
	if (code != 0) {
		fprintf(stderr, "lmdb: %s: %s\n", what, mdb_strerror(code));
		exit(1);
	}
}

int main(int argc, char **argv) {
	if (argc != 5) {
		fprintf(stderr, "usage: lmdb DIR map|file FROM TO\n");
		return 2;
	}
	MDB_env *env;
	must("create", mdb_env_create(&env));
	must("mapsize", mdb_env_set_mapsize(env, 256 << 20));
	must("open", mdb_env_open(env, argv[1], strcmp(argv[2], "map") == 0 ? MDB_WRITEMAP : 0, 0644));
	for (long n = atol(argv[3]); n <= atol(argv[4]); n++) {
		MDB_txn *txn;
		MDB_dbi dbi;
		must("begin", mdb_txn_begin(env, NULL, 0, &txn));
		must("dbi", mdb_dbi_open(txn, NULL, 0, &dbi));
		for (int k = 0; k < KEYS; k++) {
			char key[32], value[400];
			memset(value, 'a' + n % 26, sizeof value);
			snprintf(key, sizeof key, "key%05d", k);
			value[snprintf(value, 20, "%010ld.", n)] = '.';
			MDB_val mk = {strlen(key), key}, mv = {50 + (k * 7 + n) % 350, value};
			must("put", mdb_put(txn, dbi, &mk, &mv, 0));
		}
		must("commit", mdb_txn_commit(txn));
		printf("%ld\n", n);
		fflush(stdout);
	}
	mdb_env_close(env);
	return 0;
}
