package peers;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.processor.TimestampExtractor;

/**
 * The join that tieout's matcher does, as Kafka Streams does it: both sides of a payment by key, exactly once, with the
 * unmatched of either side when the window has passed.
 *
 * <p>Arguments: broker, source topic, target topic, application id, threads, folder for state, seconds of the window,
 * milliseconds between commits. It writes {@code first} to standard output when it sees the first record, and runs until
 * it is terminated.
 */
public final class OuterJoin {

    private static final byte[] MATCH = "match".getBytes(StandardCharsets.UTF_8);

    private OuterJoin() {}

    public static void main(String[] arguments) throws InterruptedException {
        KafkaStreams streams = new KafkaStreams(
                topology(arguments[1], arguments[2], Duration.ofSeconds(Long.parseLong(arguments[6]))).build(),
                settings(arguments));
        CountDownLatch end = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(10));
            end.countDown();
        }));
        streams.start();
        end.await();
    }

    private static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[3]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[4]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments[7]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        settings.put(StreamsConfig.DEFAULT_TIMESTAMP_EXTRACTOR_CLASS_CONFIG, ReceivedAt.class);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), "4000");
        return settings;
    }

    private static StreamsBuilder topology(String source, String target, Duration window) {
        StreamsBuilder builder = new StreamsBuilder();
        AtomicBoolean seen = new AtomicBoolean();
        KStream<byte[], byte[]> legs = builder.stream(source, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .peek((key, value) -> {
                    if (!seen.get() && seen.compareAndSet(false, true)) {
                        System.out.println("first");
                        System.out.flush();
                    }
                })
                .filter((key, value) -> key != null && Leg.is(value));
        KStream<byte[], byte[]> internal = legs.filter((key, value) -> Leg.sideOf(value) == 0);
        KStream<byte[], byte[]> provider = legs.filter((key, value) -> Leg.sideOf(value) == 1);
        internal.outerJoin(
                        provider,
                        OuterJoin::judge,
                        JoinWindows.ofTimeDifferenceAndGrace(window, Duration.ZERO),
                        StreamJoined.with(Serdes.ByteArray(), Serdes.ByteArray(), Serdes.ByteArray()))
                .to(target, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        return builder;
    }

    private static byte[] judge(byte[] internal, byte[] provider) {
        if (internal == null || provider == null) {
            return ("missing " + (internal == null ? "internal" : "provider")).getBytes(StandardCharsets.UTF_8);
        }
        Leg expected = Leg.of(internal);
        Leg actual = Leg.of(provider);
        if (expected.amount().compareTo(actual.amount()) == 0) {
            return MATCH;
        }
        return ("mismatch " + actual.amount().subtract(expected.amount()).toPlainString())
                .getBytes(StandardCharsets.UTF_8);
    }

    /** Time is what ingest has stamped, as in tieout; control records have none and take the time seen last. */
    public static final class ReceivedAt implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTimeMs) {
            byte[] value = (byte[]) record.value();
            return Leg.is(value) ? Leg.of(value).receivedAtMs() : Math.max(partitionTimeMs, 0L);
        }
    }
}
