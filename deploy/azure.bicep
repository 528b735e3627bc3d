// Namespace, topic and subscriptions, a private container, and one identity with no more rights than a run needs.
// az deployment group create -g GROUP -f deploy/azure.bicep -p namespaceName=NAME storageName=NAME
param location string = resourceGroup().location
param namespaceName string
param storageName string
param topicName string = 'orders'
param subscriptionName string = 'orderprocessing'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'instore-orders'
  location: location
}

resource bus 'Microsoft.ServiceBus/namespaces@2022-10-01-preview' = {
  name: namespaceName
  location: location
  sku: { name: 'Standard', tier: 'Standard' }
  properties: { minimumTlsVersion: '1.2', disableLocalAuth: true }

  resource topic 'topics' = {
    name: topicName
    properties: { defaultMessageTimeToLive: 'P14D', requiresDuplicateDetection: false }

    resource orders 'subscriptions' = {
      name: subscriptionName
      properties: { deadLetteringOnMessageExpiration: true, lockDuration: 'PT1M', maxDeliveryCount: 10 }
    }
    resource marketing 'subscriptions' = {
      name: 'emailmarketing'
      properties: { deadLetteringOnMessageExpiration: true, lockDuration: 'PT1M', maxDeliveryCount: 10 }
    }
  }
}

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: storageName
  location: location
  kind: 'StorageV2'
  sku: { name: 'Standard_ZRS' }
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource extracts 'containers' = {
      name: 'extracts'
      properties: { publicAccess: 'None' }
    }
  }
}

// Azure Service Bus Data Receiver, on the topic alone: it settles and dead-letters, and cannot send or manage.
resource receives 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(bus::topic.id, identity.id, 'receives')
  scope: bus::topic
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0')
  }
}

// Storage Blob Data Reader, on the container alone.
resource reads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage::blobs::extracts.id, identity.id, 'reads')
  scope: storage::blobs::extracts
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1')
  }
}

output fullyQualifiedNamespace string = '${namespaceName}.servicebus.windows.net'
output identityClientId string = identity.properties.clientId
