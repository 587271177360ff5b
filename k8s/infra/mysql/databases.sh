# Read by the entry point of the image when the server starts on an empty volume: each service has a schema of its
# own, and a user that may do everything in it and nothing elsewhere.
for service in customers orders orchestrator; do
  docker_process_sql <<SQL
CREATE DATABASE $service CHARACTER SET utf8mb4;
CREATE USER '$service'@'%' IDENTIFIED BY '$SERVICES_PASSWORD';
GRANT ALL ON $service.* TO '$service'@'%';
SQL
done
