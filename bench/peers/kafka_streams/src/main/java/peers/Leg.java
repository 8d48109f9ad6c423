package peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/** What the join reads of a record of the topic `legs`: a version byte, then a msgpack array with its tag first. */
record Leg(int side, long receivedAtMs, BigDecimal amount) {

    private static final int TAG_OF_A_LEG = 0;
    private static final int FIELDS_BEFORE_SIDE = 1; // generation
    private static final int FIELDS_BEFORE_RECEIVED_AT = 6; // source, record, id, occurred_at, inbox partition and offset
    private static final int FIELDS_BEFORE_AMOUNT = 2; // sequence, supersedes

    static boolean is(byte[] value) {
        try (MessageUnpacker fields = MessagePack.newDefaultUnpacker(value, 1, value.length - 1)) {
            fields.unpackArrayHeader();
            return fields.unpackInt() == TAG_OF_A_LEG;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static Leg of(byte[] value) {
        try (MessageUnpacker fields = MessagePack.newDefaultUnpacker(value, 1, value.length - 1)) {
            fields.unpackArrayHeader();
            fields.unpackInt();
            fields.skipValue(FIELDS_BEFORE_SIDE);
            int side = fields.unpackInt();
            fields.skipValue(FIELDS_BEFORE_RECEIVED_AT);
            long receivedAtMs = fields.unpackLong();
            fields.skipValue(FIELDS_BEFORE_AMOUNT);
            return new Leg(side, receivedAtMs, new BigDecimal(fields.unpackString()));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static int sideOf(byte[] value) {
        try (MessageUnpacker fields = MessagePack.newDefaultUnpacker(value, 1, value.length - 1)) {
            fields.unpackArrayHeader();
            fields.unpackInt();
            fields.skipValue(FIELDS_BEFORE_SIDE);
            return fields.unpackInt();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
